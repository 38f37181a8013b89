"""Journal steps become batches for the indexes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from embedders.base import Encoded
from indexes.base import TextBatch, TokenBatch, VectorBatch, Vectors
from indexes.metadata import decode_metadata
from ragstone.types import Metadata
from retrieval.store.values import ChunkMetadata, ChunkRow, Step


def merge(steps: Sequence[Step]) -> Step:
    """Consecutive steps as one: what came and went inside it does not appear as added.

    Keys are never used again, so a deletion always follows its addition.
    """
    if len(steps) == 1:
        return steps[0]
    deleted = tuple(key for step in steps for key in step.deleted)
    gone = set(deleted)
    added = tuple(row for step in steps for row in step.added if row.key not in gone)
    return Step(seq=steps[-1].seq, added=added, deleted=deleted)


def vector_batch(step: Step, vectors: Vectors, found: NDArray[np.bool_]) -> VectorBatch:
    """The dense leg's part: rows that have a vector."""
    keys = np.fromiter((row.key for row in step.added), np.int64, len(step.added))
    return VectorBatch(keys=keys[found], vectors=vectors[found], deleted=_keys(step.deleted))


def text_batch(step: Step, *, title_boost: int = 1) -> TextBatch:
    """The lexical leg's part: each chunk with its title and its surroundings.

    The title's terms count ``title_boost`` times: BM25F with a weight of the title's own and one length for
    both (Robertson, Zaragoza and Taylor, "Simple BM25 extension to multiple weighted fields", CIKM 2004).
    """
    return TextBatch(
        keys=_keys([row.key for row in step.added]),
        texts=[
            f"{f'{row.title} ' * title_boost}{row.context}" if row.title else row.context
            for row in step.added
        ],
        languages=[row.language for row in step.added],
        deleted=_keys(step.deleted),
    )


def token_batch(step: Step, encoded: Mapping[bytes, Encoded]) -> TokenBatch:
    """Late interaction's part: rows whose text is ``encoded``, by its hash."""
    rows = [row for row in step.added if row.text_hash in encoded]
    return TokenBatch(
        keys=_keys([row.key for row in rows]),
        tokens=[encoded[row.text_hash].tokens for row in rows],
        ids=[encoded[row.text_hash].ids for row in rows],
        deleted=_keys(step.deleted),
    )


def metadata_rows(rows: Sequence[ChunkRow | ChunkMetadata]) -> list[tuple[int, str, Metadata]]:
    """The filter index's part."""
    return [(row.key, row.document_id, decode_metadata(row.metadata_json)) for row in rows]


def _keys(keys: Sequence[int]) -> NDArray[np.int64]:
    return np.asarray(keys, dtype=np.int64).reshape(-1)
