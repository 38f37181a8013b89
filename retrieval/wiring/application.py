"""The application behind the API: which part of the house answers which call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import date
from importlib.metadata import version
from typing import Any

from embedders.base import Vectors
from embedders.lengths import truncations
from generator.base import Generator
from indexes.directory import Lock
from indexes.metadata import decode_metadata
from ragstone.answers import UsageRecord
from ragstone.errors import FailedPrecondition, InvalidArgument, NotFound
from ragstone.types import (
    AnswerEvent,
    Collection,
    Comparison,
    Document,
    GoldenQuery,
    MissingTexts,
    Query,
    QuerySource,
    Question,
    RebuildPlan,
    Recipe,
    RerankScores,
    SearchResult,
    ServerInfo,
    Version,
    Wait,
    WriteResult,
)
from retrieval.api.application import Embedded
from retrieval.config import Settings
from retrieval.ingest.writer import Writer
from retrieval.query.answer import Answerer
from retrieval.query.pages import decode_position, encode_position
from retrieval.query.search import Searcher
from retrieval.store.database import Database
from retrieval.store.documents import Documents
from retrieval.store.golden import GoldenQueries
from retrieval.store.notices import Notices
from retrieval.store.ownership import Ownership
from retrieval.store.usage import Accounts
from retrieval.store.values import DocumentRow
from retrieval.versions.collections import Collections
from retrieval.versions.leaving import Leaving
from retrieval.versions.rebuild import Rebuilds
from retrieval.versions.recipe import EmbedderSpec
from retrieval.versions.reembedding import Reembedding
from retrieval.versions.service import Versions
from retrieval.versions.traffic import Traffics
from retrieval.wiring.opener import RegistryOpener


class Ragstone:
    """The application behind the API: every call of ``retrieval.api.application.Application``."""

    def __init__(
        self,
        *,
        settings: Settings,
        lock: Lock,
        database: Database,
        opener: RegistryOpener,
        collections: Collections,
        versions: Versions,
        rebuilds: Rebuilds,
        leaving: Leaving,
        background: Sequence[asyncio.Task[None]],
        notices: Notices,
        ownership: Ownership,
        reembedding: Reembedding,
        traffic: Traffics,
        writer: Writer,
        searcher: Searcher,
        answerer: Answerer,
        generator: Generator,
        documents: Documents,
        golden: GoldenQueries,
        accounts: Accounts,
    ) -> None:
        self._settings = settings
        self._lock = lock
        self._database = database
        self._opener = opener
        self._collections = collections
        self._versions = versions
        self._rebuilds = rebuilds
        self._leaving = leaving
        self._background = background
        self._notices = notices
        self._ownership = ownership
        self._reembedding = reembedding
        self._traffic = traffic
        self._writer = writer
        self._searcher = searcher
        self._answerer = answerer
        self._generator = generator
        self._documents = documents
        self._golden = golden
        self._accounts = accounts

    # -- collections and versions -----------------------------------------------------------------

    async def create_collection(self, name: str, recipe: Recipe) -> Collection:
        """Create a collection and serve it."""
        return await self._collections.create(name, recipe)

    async def get_collection(self, name: str) -> Collection:
        """One collection."""
        return await self._collections.describe(name)

    def readiness(self) -> Mapping[str, bool]:
        """Whether each collection can be asked here, by name."""
        return self._collections.readiness()

    async def list_collections(self) -> list[Collection]:
        """All collections, by name."""
        return await self._collections.list()

    async def delete_collection(self, name: str) -> None:
        """Delete a collection and all that belongs to it."""
        await self._leaving.leave(self._collections.get(name))
        await self._collections.delete(name)

    async def compact(self, name: str) -> Collection:
        """Merge the pieces of a collection's indexes now."""
        return await self._collections.compact(name)

    async def set_golden_queries(self, name: str, queries: Sequence[GoldenQuery]) -> None:
        """Replace what a collection has to answer well."""
        await self._golden.replace(self._collections.get(name).row.id, queries)

    async def get_golden_queries(self, name: str) -> list[GoldenQuery]:
        """What a collection has to answer well."""
        return await self._golden.of(self._collections.get(name).row.id)

    async def versions(self, collection: str) -> list[Version]:
        """The versions of a collection."""
        return list(await self._versions.list(collection))

    async def get_version(self, collection: str, name: str) -> Version:
        """One version. Raises NotFound."""
        return await self._versions.get(collection, name)

    async def create_version(self, collection: str, recipe: Recipe, *, paused: bool = False) -> Version:
        """Begin a rebuild."""
        return await self._versions.create(collection, recipe, paused=paused)

    async def plan_version(self, collection: str, recipe: Recipe) -> RebuildPlan:
        """What a rebuild would take."""
        return await self._versions.plan(collection, recipe)

    def watch_version(self, collection: str, name: str) -> AsyncIterator[Version]:
        """A version, and what becomes of it."""
        return self._versions.watch(collection, name)

    async def promote_version(
        self, collection: str, name: str, *, force: bool, limits: Mapping[str, Any] | None = None
    ) -> Version:
        """Let a version serve."""
        return await self._versions.promote(collection, name, force=force, limits=limits)

    async def compare_versions(
        self, collection: str, a: str, b: str, *, queries: Sequence[GoldenQuery], source: QuerySource | None
    ) -> Comparison:
        """Ask two versions the same."""
        return await self._versions.compare(collection, a, b, queries=queries, source=source)

    async def rollback(self, collection: str) -> Version:
        """Let the version serve again that served before."""
        return await self._versions.rollback(collection)

    async def pause_version(self, collection: str, name: str) -> Version:
        """Break a rebuild off, to go on later."""
        return await self._versions.pause(collection, name)

    async def resume_version(self, collection: str, name: str) -> Version:
        """Go on with a rebuild."""
        return await self._versions.resume(collection, name)

    async def set_traffic(
        self, collection: str, version: str, *, shadow: float | None, canary: float | None
    ) -> Version:
        """Give a version that does not serve yet a share of the live searches."""
        return await self._versions.set_traffic(collection, version, shadow=shadow, canary=canary)

    async def delete_version(self, collection: str, name: str) -> int:
        """Delete a version that does not serve; the bytes freed."""
        return await self._versions.delete(collection, name)

    async def list_missing_embeddings(
        self, collection: str, name: str, *, worker: str, max_texts: int, lease_s: float
    ) -> MissingTexts:
        """Texts for a worker of a re-embedding job."""
        return await self._reembedding.lend(
            collection, name, worker=worker, max_texts=max_texts, lease_s=lease_s
        )

    async def put_embeddings(
        self,
        collection: str,
        name: str,
        *,
        space: str,
        lease: str,
        hashes: Sequence[bytes],
        vectors: Vectors,
        refused: Mapping[bytes, str],
    ) -> int:
        """What a worker of a re-embedding job made of them; how many texts are left."""
        return await self._reembedding.store(
            collection, name, space=space, lease=lease, hashes=hashes, vectors=vectors, refused=refused
        )

    # -- documents -------------------------------------------------------------------------------

    async def upsert(
        self,
        collection: str,
        documents: Sequence[Document],
        *,
        request_id: str,
        wait: Wait,
        tenant: str,
    ) -> WriteResult:
        """Add or replace documents."""
        return await self._writer.upsert(
            self._collections.get(collection),
            documents,
            request_id=request_id,
            wait=wait,
            tenant=tenant,
        )

    async def delete(
        self,
        collection: str,
        *,
        ids: Sequence[str],
        filter: str,
        request_id: str,
        wait: Wait,
        tenant: str,
    ) -> WriteResult:
        """Delete documents by id or by filter."""
        return await self._writer.delete(
            self._collections.get(collection),
            ids=ids,
            filter=filter,
            request_id=request_id,
            wait=wait,
            tenant=tenant,
        )

    async def get_document(self, collection: str, id: str) -> Document:
        """One document. Raises NotFound."""
        snapshot = self._collections.get(collection).snapshot
        row = await self._documents.get(snapshot.collection.id, id)
        if row is None:
            raise NotFound(f"collection {collection!r} has no document {id!r}")
        return _document(row)

    async def list_documents(
        self, collection: str, *, page_size: int, page_token: str
    ) -> tuple[list[Document], str]:
        """Documents by id, and the token of the next page. Raises InvalidPageToken."""
        snapshot = self._collections.get(collection).snapshot
        after = decode_position(page_token)
        rows = await self._documents.list(snapshot.collection.id, after_id=after, limit=page_size)
        return [_document(row) for row in rows], encode_position(rows[-1].id) if len(
            rows
        ) == page_size else ""

    # -- retrieval ---------------------------------------------------------------------------------

    async def search(
        self, collection: str, query: Query, *, tenant: str, deadline_s: float | None
    ) -> SearchResult:
        """One search."""
        return await self._searcher.search(
            self._collections.get(collection), query, tenant=tenant, deadline_s=deadline_s
        )

    async def batch_search(
        self, collection: str, queries: Sequence[Query], *, tenant: str, deadline_s: float | None
    ) -> list[SearchResult]:
        """Many searches, each answered as if alone; all or an error."""
        return await self._searcher.search_many(
            self._collections.get(collection), queries, tenant=tenant, deadline_s=deadline_s
        )

    async def answer(
        self, collection: str, question: Question, *, tenant: str, deadline_s: float | None
    ) -> AsyncIterator[AnswerEvent]:
        """A cited answer, as a typed stream."""
        events = self._answerer.answer(
            self._collections.get(collection), question, tenant=tenant, deadline_s=deadline_s
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def embed(self, collection: str, texts: Sequence[str], *, kind: str, tenant: str) -> Embedded:
        """The vectors of texts in the collection's serving space."""
        with self._collections.get(collection).lease() as snapshot:
            embedder = snapshot.parts.embedder
            if kind not in ("query", "passage"):
                raise InvalidArgument.at("kind", f"is {kind!r}; 'query' and 'passage' are known")
            passages = kind == "passage"
            embed = embedder.embed_passages if passages else embedder.embed_queries
            return Embedded(
                vectors=await embed(texts, tenant=tenant),
                space=embedder.space.id,
                truncations=await truncations(embedder, texts, passages=passages),
            )

    async def rerank(
        self, collection: str, query: str, texts: Sequence[str], *, deadline_s: float | None
    ) -> RerankScores:
        """The serving version's reranker on texts. Raises FailedPrecondition where there is none."""
        with self._collections.get(collection).lease() as snapshot:
            reranker = snapshot.parts.reranker
            if reranker is None:
                raise FailedPrecondition(f"the recipe of {collection!r} names no reranker")
            scores = await reranker.score(query, texts, deadline_s=deadline_s)
            return RerankScores(
                scores=tuple(scores.tolist()),
                complete=len(scores) == len(texts),
                version=snapshot.version.name,
            )

    async def usage(
        self, *, tenant: str, first_day: date | None, last_day: date | None
    ) -> Sequence[UsageRecord]:
        """What answers took of generators."""
        if first_day is not None and last_day is not None and first_day > last_day:
            raise InvalidArgument.at("first_day", f"{first_day} is after last_day, {last_day}")
        every = tenant in self._settings.auth.operators
        return await self._accounts.of(None if every else tenant, first=first_day, last=last_day)

    async def info(self) -> ServerInfo:
        """What this server is."""
        recipe = self._settings.recipe.get("embedder", {})
        spec = EmbedderSpec.model_validate(recipe)
        return ServerInfo(
            version=version("ragstone-server"),
            max_message_bytes=self._settings.limits.max_message_bytes,
            max_k=1000,
            max_batch=128,
            embedder={"kind": spec.kind, **{key: str(value) for key, value in spec.options.items()}},
        )

    async def close(self) -> None:
        """Checkpoint, then close everything, the lock last."""
        for task in self._background:
            task.cancel()
        await asyncio.wait(self._background)
        await self._traffic.close()
        await self._rebuilds.close()
        await self._ownership.close()
        await self._collections.close()
        await self._generator.close()
        await self._answerer.close()
        await self._opener.close()
        await asyncio.to_thread(self._writer.close)
        await self._notices.close()
        await self._database.close()
        self._lock.release()


def _document(row: DocumentRow) -> Document:
    return Document(
        id=row.id,
        text=row.text,
        title=row.title,
        metadata=decode_metadata(row.metadata_json),
        language=row.language or None,
    )
