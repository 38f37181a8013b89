"""One worker of a re-embedding job: borrows texts from the server, embeds them, brings the vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

import embedders.registry
from embedders.base import Embedder, Vectors
from embedders.refusals import Embed, Outcome, embed_or_refuse
from ragstone import AsyncClient
from ragstone.errors import BackendUnavailable, Internal, Overloaded, SpaceMismatch
from ragstone.types import MissingText, MissingTexts

log = structlog.get_logger(__name__)
T = TypeVar("T")

_CALL_S: Final = 120.0
_LANES: Final = 2
"""Slices at a time: while one is on its way to the server the model has another."""
_PATIENCE_S: Final = 120.0
_REASON_CHARS: Final = 500
_PROBE: Final = "a text that any model can embed"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """How much a worker takes at a time."""

    range_texts: int = 4096
    """Borrowed together, and embedded in the order of their lengths."""
    slice_texts: int = 256
    """Brought together: what a worker that dies has embedded in vain is at most two slices."""
    lease_s: float = 30.0
    """Renewed every third of it; so long a dead worker's texts wait for another."""
    poll_s: float = 0.2


@dataclass(slots=True)
class Tally:
    """What a worker has done so far, and what it knows of the whole job."""

    texts: int = 0
    missing: int = 0
    """Texts of the version that lack a vector, parked ones included, as the server last said."""
    parked: list[str] = field(default_factory=list)
    """Why, for each text that this worker gave up."""


class Worker:
    """Works until the server says that nothing is left. Several may work at one version, anywhere."""

    def __init__(
        self,
        client: AsyncClient,
        collection: str,
        version: str,
        *,
        name: str,
        limits: WorkerLimits | None = None,
        on_progress: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._where = collection, version
        self._name = name
        self._limits = limits or WorkerLimits()
        self._on_progress = on_progress
        self._embedder: Embedder | None = None
        self._leases: dict[str, str] = {}
        """Those held, with the space of their texts."""
        self._tally = Tally()

    async def run(self) -> Tally:
        """Embed what nobody else does, until all of the version is embedded or parked.

        Can be broken off at any moment and run again. Raises SpaceMismatch when the model here is not the
        one of the version's space, BackendUnavailable when the server or the model stays away, and what the
        embedder raises when it is opened.
        """
        renewing = asyncio.create_task(self._renew())
        upcoming = asyncio.create_task(self._borrow())
        try:
            while (part := await upcoming) is not None:
                # The next range comes while this one is embedded: the model never waits for the server.
                upcoming = asyncio.create_task(self._borrow())
                await self._embed(part)
        finally:
            for task in (upcoming, renewing):
                task.cancel()
            await asyncio.gather(upcoming, renewing, return_exceptions=True)
            if self._embedder is not None:
                await self._embedder.close()
        return self._tally

    # -- the server's side -------------------------------------------------------------------------

    async def _borrow(self) -> MissingTexts | None:
        """The next range; waits while others hold all that is left. None at the end."""
        limits = self._limits
        while True:
            part = await _patiently(
                lambda: self._client.list_missing_embeddings(
                    *self._where,
                    worker=self._name,
                    max_texts=limits.range_texts,
                    lease_s=limits.lease_s,
                    timeout=_CALL_S,
                )
            )
            self._tally.missing = part.missing
            self._on_progress(self._tally)
            if part.texts:
                self._leases[part.lease] = part.space
                return part
            if part.done:
                return None
            await asyncio.sleep(limits.poll_s)

    async def _put(
        self, part: MissingTexts, vectors: dict[bytes, Vectors], refused: dict[bytes, str]
    ) -> None:
        self._tally.missing = await _patiently(
            lambda: self._client.put_embeddings(
                *self._where,
                space=part.space,
                lease=part.lease,
                vectors=vectors,
                refused=refused,
                timeout=_CALL_S,
            )
        )
        self._tally.texts += len(vectors)
        self._tally.parked += refused.values()
        self._on_progress(self._tally)

    async def _renew(self) -> None:
        """Keep what is held, also while a slice takes longer than a lease."""
        while True:
            await asyncio.sleep(self._limits.lease_s / 3)
            for lease, space in tuple(self._leases.items()):
                try:
                    await self._client.put_embeddings(
                        *self._where, space=space, lease=lease, vectors={}, timeout=_CALL_S
                    )
                except BackendUnavailable as exc:
                    log.warning("lease_not_renewed", reason=exc.message)

    # -- the model's side --------------------------------------------------------------------------

    async def _embed(self, part: MissingTexts) -> None:
        if self._embedder is None:
            self._embedder = await open_embedder(part)
        slices = _slices(part.texts, self._limits.slice_texts)
        try:
            async with asyncio.TaskGroup() as lanes:
                for _ in range(_LANES):
                    lanes.create_task(self._embed_slices(part, self._embedder, slices))
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        del self._leases[part.lease]

    async def _embed_slices(
        self, part: MissingTexts, embedder: Embedder, slices: Iterator[Sequence[MissingText]]
    ) -> None:
        async def embed(texts: Sequence[str]) -> Vectors:
            return await _patiently(lambda: embedder.embed_passages(texts))

        for some in slices:
            outcomes = await embed_or_refuse(embed, [missing.text for missing in some])
            if all(isinstance(outcome, str) for outcome in outcomes):
                await _expect_health(embed)
            vectors, refused = _sort(some, outcomes)
            await self._put(part, vectors, refused)


async def open_embedder(part: MissingTexts) -> Embedder:
    """The embedder of a version's recipe, on this machine.

    Raises SpaceMismatch when its space is not the version's, and what the registry raises.
    """
    options = dict(part.embedder)
    embedder = await embedders.registry.open_embedder(str(options.pop("kind", "")), options)
    here = embedder.space.id
    if here != part.space:
        await embedder.close()
        raise SpaceMismatch(
            f"the version is of the space {part.space!r}, the model here of {here!r}: their weights differ",
            metadata={"version_space": part.space, "model_space": here},
        )
    return embedder


def _slices(texts: Sequence[MissingText], size: int) -> Iterator[Sequence[MissingText]]:
    """All texts, the longest first, ``size`` at a time: little padding, and no long batch at the end."""
    ordered = sorted(texts, key=lambda missing: len(missing.text), reverse=True)
    return (ordered[start : start + size] for start in range(0, len(ordered), size))


def _sort(
    texts: Sequence[MissingText], outcomes: Sequence[Outcome]
) -> tuple[dict[bytes, Vectors], dict[bytes, str]]:
    vectors: dict[bytes, Vectors] = {}
    refused: dict[bytes, str] = {}
    for missing, outcome in zip(texts, outcomes, strict=True):
        if isinstance(outcome, str):
            refused[missing.text_hash] = outcome[:_REASON_CHARS]
        else:
            vectors[missing.text_hash] = outcome
    return vectors, refused


async def _expect_health(embed: Embed) -> None:
    """Raise Internal when it is the model that fails, not the texts: it would have all of them parked."""
    [outcome] = await embed_or_refuse(embed, [_PROBE])
    if isinstance(outcome, str):
        raise Internal(f"the model embeds nothing: {outcome}")


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """A server that is started anew, or a model that is away for a moment, ends no job."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type((BackendUnavailable, Overloaded)),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_delay(_PATIENCE_S),
        before_sleep=lambda state: log.warning("tried_again", attempt=state.attempt_number),
        reraise=True,
    ):
        with attempt:
            return await call()
    raise AssertionError("the retry loop ends by returning or raising")
