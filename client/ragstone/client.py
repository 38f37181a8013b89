# ruff: noqa: ASYNC109 (a timeout here is the call's gRPC deadline, which the server sees too)
"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from datetime import date
from types import TracebackType
from typing import Self, Unpack

from google.protobuf.message import Message

from ragstone import calls, calls_versions
from ragstone.answers import Generation, Turn, UsageRecord
from ragstone.calls import Embeddings, Health, SearchOptions
from ragstone.channel import TLS, destination
from ragstone.connection import AsyncConnection
from ragstone.errors import BackendUnavailable
from ragstone.importing import Import, OnProgress
from ragstone.types import (
    AnswerEvent,
    Collection,
    Comparison,
    Document,
    Fusion,
    GoldenQuery,
    MissingTexts,
    Mode,
    Query,
    QuerySource,
    RebuildPlan,
    Recipe,
    Rerank,
    RerankScores,
    SearchResult,
    ServerInfo,
    VectorLike,
    Version,
    Wait,
    WriteResult,
)


class AsyncClient:
    """A connection to a Ragstone server, for asyncio.

    Every call has a deadline: its own ``timeout`` in seconds, else the client's. Every error is a
    ``RagstoneError``; ``BackendUnavailable`` is what a server that does not answer raises. Cancelling
    the task that awaits a call stops the call's work on the server.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        token: str | None = None,
        tls: TLS | bool | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._connection = AsyncConnection(destination(address, token=token, tls=tls, timeout=timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls on their way are cancelled."""
        await self._connection.close()

    # -- collections and versions -------------------------------------------------------------

    async def create_collection(
        self, name: str, *, recipe: Recipe | None = None, timeout: float | None = None
    ) -> Collection:
        """Create a collection. Raises AlreadyExists, or InvalidArgument for a wrong name or recipe."""
        return await self._connection.unary(calls_versions.create_collection(name, recipe), timeout)

    async def get_collection(self, name: str, *, timeout: float | None = None) -> Collection:
        """One collection. Raises NotFound."""
        return await self._connection.unary(calls_versions.get_collection(name), timeout)

    async def list_collections(self, *, timeout: float | None = None) -> list[Collection]:
        """All collections, by name."""
        return await self._connection.unary(calls_versions.list_collections(), timeout)

    async def delete_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a collection and all that it holds. Raises NotFound."""
        await self._connection.unary(calls_versions.delete_collection(name), timeout)

    async def compact(self, collection: str, *, timeout: float | None = None) -> Collection:
        """Merge the serving version's small parts; answers do not change. Raises NotFound."""
        return await self._connection.unary(calls_versions.compact(collection), timeout)

    async def set_golden_queries(
        self, collection: str, queries: Sequence[GoldenQuery], *, timeout: float | None = None
    ) -> None:
        """Replace what every version of a collection has to answer well before it serves; none removes all.

        Raises NotFound, InvalidArgument naming ``queries[i].<field>``.
        """
        await self._connection.unary(calls_versions.set_golden_queries(collection, queries), timeout)

    async def get_golden_queries(self, collection: str, *, timeout: float | None = None) -> list[GoldenQuery]:
        """The golden queries of a collection, by id. Raises NotFound."""
        return await self._connection.unary(calls_versions.get_golden_queries(collection), timeout)

    async def versions(self, collection: str, *, timeout: float | None = None) -> list[Version]:
        """All index versions of a collection, oldest first. Raises NotFound."""
        return await self._connection.unary(calls_versions.versions(collection), timeout)

    async def get_version(self, collection: str, name: str, *, timeout: float | None = None) -> Version:
        """One index version. Raises NotFound."""
        return await self._connection.unary(calls_versions.get_version(collection, name), timeout)

    async def create_version(
        self, collection: str, recipe: Recipe, *, paused: bool = False, timeout: float | None = None
    ) -> Version:
        """Begin a rebuild into another recipe; the serving version goes on serving.

        The options in ``recipe`` replace those of the serving version's, what it leaves out stays, and a
        section that names another ``kind`` starts from that kind's defaults. One that begins ``paused`` waits
        for ``resume_version``: re-embedding jobs can go first. Raises NotFound, InvalidArgument
        naming ``recipe.<section>.<key>``, Conflict naming the rebuild that is already under way,
        FailedPrecondition when nothing would change.
        """
        return await self._connection.unary(
            calls_versions.create_version(collection, recipe, paused), timeout
        )

    async def plan_version(
        self, collection: str, recipe: Recipe, *, timeout: float | None = None
    ) -> RebuildPlan:
        """What ``create_version`` would do and take; changes nothing. Raises what it raises."""
        return await self._connection.unary(calls_versions.plan_version(collection, recipe), timeout)

    def watch_version(
        self, collection: str, name: str, *, timeout: float | None = None
    ) -> AsyncIterator[Version]:
        """The version now and whenever it changed, until it is ready, serving, failed or deleted.

        Leaving the iteration early leaves the rebuild alone. Without a ``timeout`` there is no deadline.
        Raises NotFound, and BackendUnavailable when the server goes: the rebuild goes on when it is back.
        """
        return self._connection.stream(calls_versions.watch_version(collection, name), timeout, endless=True)

    async def compare_versions(
        self,
        collection: str,
        a: str,
        b: str,
        *,
        queries: Sequence[GoldenQuery] = (),
        source: QuerySource | str | None = None,
        timeout: float | None = None,
    ) -> Comparison:
        """Ask two open versions the same queries; how their answers differ, and which are better.

        ``queries`` are asked and not kept; a ``source`` has its own; without either it is the first that has
        any of ``recorded``, ``golden``, ``chunks``. Raises NotFound, FailedPrecondition for a version that is
        not open and for a source without queries.
        """
        return await self._connection.unary(
            calls_versions.compare_versions(collection, a, b, queries, source), timeout
        )

    async def promote(
        self,
        collection: str,
        name: str,
        *,
        force: bool = False,
        gates: Mapping[str, float] | None = None,
        timeout: float | None = None,
    ) -> Version:
        """Let a ready version serve; ``force`` also one whose gates did not pass.

        ``gates`` are limits in place of those of its recipe; with any all gates are measured anew.
        One that serves already stays so. Raises NotFound, FailedPrecondition naming the gates that did not
        pass or the state that it is in, Conflict when somebody else promoted meanwhile.
        """
        return await self._connection.unary(calls_versions.promote(collection, name, force, gates), timeout)

    async def rollback(self, collection: str, *, timeout: float | None = None) -> Version:
        """Let the version serve that served before. Raises NotFound, FailedPrecondition if there is none."""
        return await self._connection.unary(calls_versions.rollback(collection), timeout)

    async def pause_version(self, collection: str, name: str, *, timeout: float | None = None) -> Version:
        """Stop the work on a version until it is resumed; what is done stays.

        Raises NotFound, FailedPrecondition in a state without work.
        """
        return await self._connection.unary(calls_versions.pause_version(collection, name), timeout)

    async def resume_version(self, collection: str, name: str, *, timeout: float | None = None) -> Version:
        """Go on with a version that is paused. Raises NotFound, FailedPrecondition in another state."""
        return await self._connection.unary(calls_versions.resume_version(collection, name), timeout)

    async def set_traffic(
        self,
        collection: str,
        version: str,
        *,
        shadow: float | None = None,
        canary: float | None = None,
        timeout: float | None = None,
    ) -> Version:
        """Give a version that does not serve yet a share of the live searches, 0 to 1; ``None`` leaves it.

        ``shadow`` asks it beside the serving version, whose answers it is compared with; ``canary`` lets it
        answer. Both at 0 end that. ``Version.traffic`` tells what was seen. Raises NotFound,
        FailedPrecondition naming its state or another canary, InvalidArgument naming the share.
        """
        return await self._connection.unary(
            calls_versions.set_traffic(collection, version, shadow, canary), timeout
        )

    async def delete_version(self, collection: str, name: str, *, timeout: float | None = None) -> int:
        """Delete a version with its files; returns the bytes freed. One under way is stopped.

        Raises NotFound, FailedPrecondition for the version that serves.
        """
        return await self._connection.unary(calls_versions.delete_version(collection, name), timeout)

    async def list_missing_embeddings(
        self,
        collection: str,
        version: str,
        *,
        worker: str,
        max_texts: int = 4096,
        lease_s: float = 30.0,
        timeout: float | None = None,
    ) -> MissingTexts:
        """Borrow texts that have no vector in the version's space, to embed them and bring the vectors.

        Nobody else gets them until the lease expires. Raises NotFound.
        """
        call = calls_versions.list_missing_embeddings(collection, version, worker, max_texts, lease_s)
        return await self._connection.unary(call, timeout)

    async def put_embeddings(
        self,
        collection: str,
        version: str,
        *,
        space: str,
        lease: str,
        vectors: Mapping[bytes, VectorLike],
        refused: Mapping[bytes, str] | None = None,
        timeout: float | None = None,
    ) -> int:
        """Store vectors by text hash, and renew the lease; returns about how many texts still lack one.

        Without any vectors it only renews. A text that has a vector keeps it. ``refused`` are texts of the
        lease that cannot be embedded, with the reason: they are parked. Raises NotFound, SpaceMismatch with
        both spaces, InvalidArgument naming the row; nothing is stored then.
        """
        call = calls_versions.put_embeddings(collection, version, space, lease, vectors, refused or {})
        return await self._connection.unary(call, timeout)

    # -- documents ----------------------------------------------------------------------------

    async def upsert(
        self,
        collection: str,
        documents: Sequence[Document],
        *,
        request_id: str | None = None,
        wait: Wait | str = Wait.INDEXED,
        timeout: float | None = None,
    ) -> WriteResult:
        """Store documents, all or none, replacing those of the same ids.

        A repeated ``request_id`` is answered from the first request. Raises InvalidArgument naming what
        is wrong, also for more than 1,000 documents: ``import_documents`` takes any number.
        """
        return await self._connection.unary(calls.upsert(collection, documents, request_id, wait), timeout)

    async def import_documents(
        self,
        collection: str,
        documents: Iterable[Document] | AsyncIterable[Document],
        *,
        wait: Wait | str = Wait.COMMITTED,
        batch: int = 1000,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Store any number of documents, ``batch`` at a time, each batch all or none; returns the totals.

        Goes at the server's pace, and goes on by itself after the connection broke. ``on_progress`` gets
        the totals so far. ``timeout`` bounds one connection; without one there is no deadline. Raises what
        ``upsert`` raises; what was acknowledged before stays.
        """
        state = Import(collection, wait=wait, batch=batch, on_progress=on_progress)
        source = _requests(state, documents)
        while True:
            try:
                await self._connection.send(state, source, timeout)
            except BackendUnavailable:
                delay_s = state.next_delay_s()
                if delay_s is None:
                    raise
                await asyncio.sleep(delay_s)
            else:
                return state.result

    async def get_document(
        self, collection: str, document_id: str, *, timeout: float | None = None
    ) -> Document:
        """One document. Raises NotFound."""
        return await self._connection.unary(calls.get_document(collection, document_id), timeout)

    async def list_documents(
        self, collection: str, *, page_size: int = 100, timeout: float | None = None
    ) -> AsyncIterator[Document]:
        """All documents by id, fetched ``page_size`` at a time. Raises NotFound."""
        token = ""
        while True:
            call = calls.list_documents(collection, page_size, token)
            documents, token = await self._connection.unary(call, timeout)
            for document in documents:
                yield document
            if not token:
                return

    async def delete(
        self,
        collection: str,
        *,
        ids: Sequence[str] | None = None,
        filter: str | None = None,
        request_id: str | None = None,
        wait: Wait | str = Wait.INDEXED,
        timeout: float | None = None,
    ) -> WriteResult:
        """Delete by ``ids`` or by ``filter``. Ids that are not stored are no error.

        Raises InvalidArgument unless exactly one of the two is given, InvalidFilter with the column.
        """
        return await self._connection.unary(calls.delete(collection, ids, filter, request_id, wait), timeout)

    # -- retrieval ----------------------------------------------------------------------------

    async def search(
        self,
        collection: str,
        text: str = "",
        *,
        vector: VectorLike | None = None,
        space: str | None = None,
        k: int = 10,
        mode: Mode | str = Mode.HYBRID,
        filter: str = "",
        language: str | None = None,
        fusion: Fusion | str | None = None,
        depth: int | None = None,
        explain: bool = False,
        page_token: str = "",
        min_seq: int | None = None,
        request_key: str = "",
        rerank: Rerank | bool | None = None,
        version: str = "",
        timeout: float | None = None,
    ) -> SearchResult:
        """The passages that answer a query, best first; ``Query`` says what each argument means.

        Raises NotFound, InvalidArgument naming the field, InvalidFilter with the column,
        InvalidPageToken, SpaceMismatch, Overloaded, DeadlineExceeded.
        """
        asked = calls.query(
            text,
            fusion,
            rerank,
            vector=vector,
            space=space,
            k=k,
            mode=mode,
            filter=filter,
            language=language,
            depth=depth,
            explain=explain,
            page_token=page_token,
            min_seq=min_seq,
            request_key=request_key,
            version=version,
        )
        return await self._connection.unary(calls.search(collection, asked), timeout)

    async def search_pages(
        self,
        collection: str,
        text: str = "",
        *,
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> AsyncIterator[SearchResult]:
        """All pages of a search, ``k`` hits each; no hit comes twice. Like ``search`` otherwise."""
        token: str | None = ""
        while token is not None:
            result = await self.search(collection, text, page_token=token, timeout=timeout, **options)
            yield result
            token = result.next_page_token or None

    async def batch_search(
        self, collection: str, queries: Sequence[Query], *, timeout: float | None = None
    ) -> list[SearchResult]:
        """One result a query, in their order, each as if asked alone."""
        return await self._connection.unary(calls.batch_search(collection, queries), timeout)

    def answer(
        self,
        collection: str,
        question: str,
        *,
        k: int = 5,
        mode: Mode | str = Mode.HYBRID,
        filter: str = "",
        language: str | None = None,
        fusion: Fusion | str | None = None,
        depth: int | None = None,
        min_seq: int | None = None,
        space: str | None = None,
        request_key: str = "",
        rerank: Rerank | bool | None = None,
        version: str = "",
        history: Sequence[Turn] = (),
        generation: Generation | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[AnswerEvent]:
        """The answer to a question as it comes: Contexts, TextDelta, Citation, Usage, Done.

        ``history`` is the conversation before the question, which may refer to it; ``generation`` says how
        the answer is made. Leaving the iteration early stops the generation. Raises what ``search`` raises.
        """
        asked = calls.query(
            question,
            fusion,
            rerank,
            k=k,
            mode=mode,
            filter=filter,
            language=language,
            depth=depth,
            min_seq=min_seq,
            space=space,
            request_key=request_key,
            version=version,
        )
        return self._connection.stream(calls.answer(collection, asked, history, generation), timeout)

    async def embed(
        self, collection: str, texts: Sequence[str], *, kind: str = "query", timeout: float | None = None
    ) -> Embeddings:
        """Vectors of texts as the collection embeds them, as ``query`` or as ``passage``."""
        return await self._connection.unary(calls.embed(collection, texts, kind), timeout)

    async def rerank(
        self, collection: str, query: str, texts: Sequence[str], *, timeout: float | None = None
    ) -> RerankScores:
        """How well texts answer a query, by the reranker of the collection's serving version.

        Raises NotFound, FailedPrecondition when its recipe names no reranker, BackendUnavailable.
        """
        return await self._connection.unary(calls.rerank(collection, query, texts), timeout)

    async def usage(
        self,
        *,
        first_day: date | None = None,
        last_day: date | None = None,
        timeout: float | None = None,
    ) -> Sequence[UsageRecord]:
        """What answers took of generators, by day in UTC, newest first: the caller's own.

        Every tenant's for one that the server's settings call an operator.
        """
        return await self._connection.unary(calls.usage(first_day, last_day), timeout)

    async def info(self, *, timeout: float | None = None) -> ServerInfo:
        """What the server is and what it accepts."""
        return await self._connection.unary(calls.info(), timeout)

    async def health(self, service: str = "", *, timeout: float | None = None) -> Health:
        """Whether the server, or one of its services, takes calls. Raises NotFound for no such service."""
        return await self._connection.unary(calls.health(service), timeout)


async def _requests(
    state: Import, documents: Iterable[Document] | AsyncIterable[Document]
) -> AsyncIterator[Message]:
    """The requests of an import, from documents of either kind."""
    if isinstance(documents, AsyncIterable):
        async for document in documents:
            completed = state.add(document)
            if completed is not None:
                yield completed
        last = state.finish()
        if last is not None:
            yield last
    else:
        for request in state.requests(iter(documents)):
            yield request
