"""The server's side of a re-embedding job: texts are borrowed, held while they are embedded, brought back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final, TypeVar

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from embedders.base import Vectors
from embedders.refusals import Outcome
from ragstone import AsyncClient
from ragstone.errors import BackendUnavailable, Overloaded, RagstoneError
from ragstone.types import MissingText, MissingTexts

log = structlog.get_logger(__name__)
T = TypeVar("T")

_CALL_S: Final = 120.0
_PATIENCE_S: Final = 120.0
_REASON_CHARS: Final = 500
_PARTS: Final = 8
"""Of what is missing a worker takes one at a time."""
_LEAST_TEXTS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """How much a worker takes at a time."""

    range_texts: int = 4096
    """Borrowed together at most, and embedded in the order of their lengths."""
    slice_texts: int = 256
    """Brought together at most: what a worker that dies has embedded in vain is at most two slices."""
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


@dataclass(slots=True)
class _Loan:
    space: str
    left: int
    """Texts that were not brought yet."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Some texts of a range: they are embedded and brought together."""

    part: MissingTexts
    texts: Sequence[MissingText]


class Borrower:
    """Borrows ranges of texts of one version. A context manager: inside, what is held is renewed."""

    def __init__(
        self,
        client: AsyncClient,
        collection: str,
        version: str,
        *,
        name: str,
        limits: WorkerLimits,
        on_progress: Callable[[Tally], None],
    ) -> None:
        self._client = client
        self._where = collection, version
        self._name = name
        self._limits = limits
        self._on_progress = on_progress
        self._loans: dict[str, _Loan] = {}
        """Those open, by lease."""
        self.tally = Tally()

    async def __aenter__(self) -> Borrower:
        self._renewing = asyncio.create_task(self._renew())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)

    async def slices(self) -> AsyncGenerator[Slice, None]:
        """Slices of one range after the other, until all of the version is embedded or parked, by whomever.

        The next range is borrowed while one is embedded: the model never waits for the server. Raises
        BackendUnavailable when the server stays away.
        """
        upcoming = asyncio.create_task(self._borrow())
        try:
            while (part := await upcoming) is not None:
                upcoming = asyncio.create_task(self._borrow())
                for texts in _cut(part.texts, self._limits.slice_texts):
                    yield Slice(part, texts)
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)

    async def bring(self, some: Slice, outcomes: Sequence[Outcome]) -> None:
        """Store the vectors of a slice, and park the texts that have none. An outcome a text, in their order.

        Raises BackendUnavailable when the server stays away, and what it refuses the vectors with.
        """
        vectors, refused = _sort(some.texts, outcomes)
        lease = some.part.lease
        self.tally.missing = await patiently(
            lambda: self._client.put_embeddings(
                *self._where,
                space=some.part.space,
                lease=lease,
                vectors=vectors,
                refused=refused,
                timeout=_CALL_S,
            )
        )
        self.tally.texts += len(vectors)
        self.tally.parked += refused.values()
        self._on_progress(self.tally)
        loan = self._loans[lease]
        loan.left -= len(some.texts)
        if not loan.left:
            del self._loans[lease]

    async def _borrow(self) -> MissingTexts | None:
        """The next range; waits while others hold all that is left. None at the end."""
        limits = self._limits
        while True:
            part = await patiently(
                lambda: self._client.list_missing_embeddings(
                    *self._where,
                    worker=self._name,
                    max_texts=self._wish(),
                    lease_s=limits.lease_s,
                    timeout=_CALL_S,
                )
            )
            self.tally.missing = part.missing
            self._on_progress(self.tally)
            if part.texts:
                self._loans[part.lease] = _Loan(part.space, len(part.texts))
                return part
            if part.done:
                return None
            await asyncio.sleep(limits.poll_s)

    def _wish(self) -> int:
        """How many texts to ask for: a part of what is missing, so that workers end at about the same time.

        Guided self-scheduling (Polychronopoulos and Kuck 1987). The first range is small: nothing is known.
        """
        return min(self._limits.range_texts, max(_LEAST_TEXTS, self.tally.missing // _PARTS))

    async def _renew(self) -> None:
        """Keep what is held, also while a slice takes longer than a lease."""
        while True:
            await asyncio.sleep(self._limits.lease_s / 3)
            for lease, loan in tuple(self._loans.items()):
                try:
                    await self._client.put_embeddings(
                        *self._where, space=loan.space, lease=lease, vectors={}, timeout=_CALL_S
                    )
                except RagstoneError as exc:
                    log.warning("lease_not_renewed", reason=exc.message)


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
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


def _cut(texts: Sequence[MissingText], size: int) -> Iterator[Sequence[MissingText]]:
    """Two slices or more, the longest texts first: little padding, and no long batch at the end."""
    size = min(size, ceil(len(texts) / 2))
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
