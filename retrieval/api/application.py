"""What the API serves: the calls that the application behind it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ragstone.answers import UsageRecord
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
    Truncation,
    Version,
    Wait,
    WriteResult,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Vectors ``(n, dim)`` of texts, their space, and by their places those texts that were cut."""

    vectors: NDArray[np.float32]
    space: str
    truncations: Mapping[int, Truncation] = field(default_factory=dict)


class Application(Protocol):
    """Every call of the API on public values. Vectors are float32 rows; errors are ``ragstone.errors``.

    ``deadline_s`` is how many seconds the caller still waits; ``None`` is no deadline. A call whose
    caller went away is cancelled.
    """

    async def create_collection(self, name: str, recipe: Recipe) -> Collection:
        """Raises AlreadyExists, or InvalidArgument naming what is wrong in the recipe."""
        ...

    async def get_collection(self, name: str) -> Collection:
        """Raises NotFound, as every call for a collection does."""
        ...

    def readiness(self) -> Mapping[str, bool]:
        """Whether each collection can be asked here, and is not far behind, by name."""
        ...

    async def list_collections(self) -> list[Collection]:
        """All collections, by name."""
        ...

    async def delete_collection(self, name: str) -> None:
        """Delete a collection and all that it holds."""
        ...

    async def compact(self, name: str) -> Collection:
        """Merge the small parts of the serving version."""
        ...

    async def set_golden_queries(self, name: str, queries: Sequence[GoldenQuery]) -> None:
        """Replace all golden queries. Raises NotFound, InvalidArgument naming an id that comes twice."""
        ...

    async def get_golden_queries(self, name: str) -> list[GoldenQuery]:
        """The golden queries, by id. Raises NotFound."""
        ...

    async def versions(self, collection: str) -> list[Version]:
        """All index versions, oldest first."""
        ...

    async def get_version(self, collection: str, name: str) -> Version:
        """One index version. Raises NotFound, as every call for a version does."""
        ...

    async def create_version(self, collection: str, recipe: Recipe, *, paused: bool = False) -> Version:
        """Begin a rebuild and return its version without waiting for more; ``paused``, it waits itself.

        The options in ``recipe`` replace those of the serving version's, what it leaves out stays, and a
        section that names another ``kind`` starts from that kind's defaults. Raises InvalidArgument naming
        ``recipe.<section>.<key>``, Conflict naming the rebuild that is already under way, FailedPrecondition
        when nothing would change.
        """
        ...

    async def plan_version(self, collection: str, recipe: Recipe) -> RebuildPlan:
        """What ``create_version`` would do; changes nothing. Raises InvalidArgument and FailedPrecondition
        as it does.
        """
        ...

    def watch_version(self, collection: str, name: str) -> AsyncIterator[Version]:
        """The version now and whenever it changed, at most a few times a second.

        Ends when it is ready, serving, failed or deleted. Each step may run in a task of its own; a step
        that is cancelled ends the iteration. Stopping to watch changes nothing for the version.
        """
        ...

    async def compare_versions(
        self, collection: str, a: str, b: str, *, queries: Sequence[GoldenQuery], source: QuerySource | None
    ) -> Comparison:
        """Ask two versions ``queries``, or those of ``source``; without either, the first there are.

        Raises FailedPrecondition for a version that is not open, and for a source without queries.
        """
        ...

    async def promote_version(
        self, collection: str, name: str, *, force: bool, limits: Mapping[str, Any] | None = None
    ) -> Version:
        """Let a ready version serve, with ``force`` also one whose gates did not pass.

        With ``limits`` in place of its recipe's gates all are measured anew; an unknown or wrong one is
        InvalidArgument naming ``gates.<key>``.
        Returns one that serves already as it is: a caller that got no answer asks again. Raises
        FailedPrecondition with the gates' numbers in message and metadata, or naming a state that is not
        ready, and Conflict when somebody else promoted meanwhile.
        """
        ...

    async def rollback(self, collection: str) -> Version:
        """The version that served before, serving again. Raises FailedPrecondition when there is none."""
        ...

    async def pause_version(self, collection: str, name: str) -> Version:
        """Stop the work on a version. Returns one that is paused already as it is.

        Raises FailedPrecondition in a state without work.
        """
        ...

    async def resume_version(self, collection: str, name: str) -> Version:
        """Go on with a paused version. Returns one that is at work already as it is.

        Raises FailedPrecondition in a state without work.
        """
        ...

    async def set_traffic(
        self, collection: str, version: str, *, shadow: float | None, canary: float | None
    ) -> Version:
        """Give a version that does not serve yet shares of the live searches, 0 to 1; ``None`` leaves one.

        Raises FailedPrecondition in another state than ready or retiring, and naming the canary that there
        is already.
        """
        ...

    async def delete_version(self, collection: str, name: str) -> int:
        """Delete a version and its files, and stop the work on it; returns the bytes freed.

        Raises FailedPrecondition for the version that serves.
        """
        ...

    async def list_missing_embeddings(
        self, collection: str, name: str, *, worker: str, max_texts: int, lease_s: float
    ) -> MissingTexts:
        """At most ``max_texts`` texts that have no vector in the version's space, lent to ``worker`` alone.

        None while all others are lent, or when nothing is left.
        """
        ...

    async def put_embeddings(
        self,
        collection: str,
        name: str,
        *,
        space: str,
        lease: str,
        hashes: Sequence[bytes],
        vectors: NDArray[np.float32],
        refused: Mapping[bytes, str],
    ) -> int:
        """Store vectors ``(len(hashes), dim)`` where there are none, park refused texts, renew the lease.

        Returns about how many texts have no vector yet. Raises SpaceMismatch with both spaces,
        InvalidArgument naming the row; nothing is stored then.
        """
        ...

    async def upsert(
        self, collection: str, documents: Sequence[Document], *, request_id: str, wait: Wait, tenant: str
    ) -> WriteResult:
        """Store documents, all or none; durable on return. Ids are unique within the call."""
        ...

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
        """Delete by ``ids``, or by ``filter`` where that is not empty; durable on return."""
        ...

    async def get_document(self, collection: str, id: str) -> Document:
        """One document."""
        ...

    async def list_documents(
        self, collection: str, *, page_size: int, page_token: str
    ) -> tuple[list[Document], str]:
        """A page of documents by id, and the token of the next page, empty on the last."""
        ...

    async def search(
        self, collection: str, query: Query, *, tenant: str, deadline_s: float | None
    ) -> SearchResult:
        """One search."""
        ...

    async def batch_search(
        self, collection: str, queries: Sequence[Query], *, tenant: str, deadline_s: float | None
    ) -> list[SearchResult]:
        """One result a query, in their order."""
        ...

    def answer(
        self, collection: str, question: Question, *, tenant: str, deadline_s: float | None
    ) -> AsyncIterator[AnswerEvent]:
        """The events of one answer. Closing the iterator stops the work."""
        ...

    async def embed(self, collection: str, texts: Sequence[str], *, kind: str, tenant: str) -> Embedded:
        """Vectors ``(len(texts), dim)``; ``kind`` is ``query`` or ``passage``.

        Raises InvalidArgument naming each ``texts[i]`` that is too long for an embedder that does not cut.
        """
        ...

    async def rerank(
        self, collection: str, query: str, texts: Sequence[str], *, deadline_s: float | None
    ) -> RerankScores:
        """The serving version's reranker on ``texts``. Raises FailedPrecondition where there is none."""
        ...

    async def usage(
        self, *, tenant: str, first_day: date | None, last_day: date | None
    ) -> Sequence[UsageRecord]:
        """What a tenant's answers took of generators, newest day first; every tenant's for an operator.

        Raises InvalidArgument for a first day after the last one.
        """
        ...

    async def info(self) -> ServerInfo:
        """What the server is and what it accepts."""
        ...

    async def close(self) -> None:
        """Checkpoint and release everything. Called once, after the last call has ended."""
        ...
