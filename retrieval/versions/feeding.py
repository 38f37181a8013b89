"""Feeding steps of the journal to the indexes of a version, and what becomes of a step that is at fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import structlog

from embedders.base import TokenEncoder, Vectors
from ragstone.errors import Internal, InvalidArgument, RagstoneError
from retrieval.store.values import ChunkMetadata, Step
from retrieval.versions.parts import Parts
from retrieval.versions.passage_vectors import Found, PassageVectors, Progress
from retrieval.versions.steps import merge, metadata_rows, text_batch, token_batch, vector_batch

log = structlog.get_logger(__name__)

Feed: TypeAlias = Callable[[Step], Awaitable[object]]


class Feeder:
    """The indexes of one version, as one takes in steps. Each ignores what it has applied already."""

    def __init__(self, parts: Parts, vectors: PassageVectors) -> None:
        self._parts = parts
        self._vectors = vectors
        self.metadata_seq = -1
        """The journal position that the filter index has applied; -1 before it was filled."""

    async def all(self, batch: Step, *, handed: Mapping[bytes, bytes]) -> None:
        """Feed every index; ``handed`` are the vectors that came with the batch, by text hash.

        Raises what an index raises, after all have done what they can.
        """
        outcomes = await asyncio.gather(
            self.vectors(batch, handed), self.lexical(batch), return_exceptions=True
        )
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if errors:
            # Rather the one that says that something is away: then nothing is parked.
            raise min(errors, key=_is_at_fault)
        await self.metadata(batch)

    async def vectors(self, batch: Step, handed: Mapping[bytes, bytes] = MappingProxyType({})) -> None:
        """Feed the dense index, and that of tokens where it is not ahead."""
        tokens = self._parts.tokens
        if tokens is None or tokens.applied_seq >= batch.seq:
            vectors, found = await self._vectors.of(batch.added, handed)
        else:
            # Tokens first: whatever a search finds has them.
            vectors, found = await self.tokens(batch)
        await self._parts.dense.apply(vector_batch(batch, vectors, found), seq=batch.seq)

    async def tokens(self, batch: Step) -> tuple[Vectors, Found]:
        """Feed the index of tokens; what the same pass of the model gives for the dense one."""
        index, encoder = self._parts.tokens, self._parts.embedder
        assert index is not None
        assert isinstance(encoder, TokenEncoder)
        vectors, found, encoded = await self._vectors.with_tokens(batch.added, encoder)
        await index.apply(token_batch(batch, encoded), seq=batch.seq)
        return vectors, found

    async def lexical(self, batch: Step) -> None:
        """Feed the lexical index."""
        boost = self._parts.recipe.lexical.title_boost
        await self._parts.lexical.apply(text_batch(batch, title_boost=boost), seq=batch.seq)

    async def metadata(self, batch: Step) -> None:
        """Feed the filter index."""
        self._parts.metadata.apply(metadata_rows(batch.added), batch.deleted)
        self.metadata_seq = batch.seq

    async def load_metadata(self, pages: AsyncIterator[Sequence[ChunkMetadata]], seq: int) -> None:
        """Fill the filter index with all that is live at ``seq``."""
        async for rows in pages:
            self._parts.metadata.apply(metadata_rows(rows), [])
        self.metadata_seq = seq


async def feed_or_park(steps: Sequence[Step], feed: Feed, progress: Progress) -> None:
    """Feed ``steps`` as one. A step that is at fault is parked, but what it deletes is deleted.

    Raises what says that an index, the embedder or the catalog is away: nothing is parked for that.
    """
    batch = merge(steps)
    try:
        await feed(batch)
    except Exception as exc:
        if not _is_at_fault(exc):
            raise
        if len(steps) > 1:
            for step in steps:
                await feed_or_park([step], feed, progress)
            return
        log.exception("step_parked", seq=batch.seq)
        progress.parked_steps[batch.seq] = str(exc) or type(exc).__name__
        await feed(Step(seq=batch.seq, deleted=batch.deleted))


def _is_at_fault(error: BaseException) -> bool:
    """Whether it is the step itself, so that trying again is of no use: it is wrong, or meets a bug."""
    return isinstance(error, InvalidArgument | Internal) or not isinstance(error, RagstoneError)
