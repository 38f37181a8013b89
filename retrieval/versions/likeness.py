"""Whether a model still makes the vectors of its space, where its name and digest cannot tell.

A server of OpenAI's shape says what its model is called, not which weights it has. What can be compared are
vectors: those that are stored of a space, and what the model makes of the same texts now.
"""

from __future__ import annotations

from typing import Final

from embedders.base import Embedder, Space
from ragstone.errors import SpaceMismatch
from retrieval.store.embeddings import Embeddings
from retrieval.versions.passages import passage_text

_TEXTS: Final = 4
_SAME: Final = 0.999
"""Other hardware and 16 bits keep a text's cosine with itself above 0.9999; other weights do not."""


async def expect_same_vectors(embedder: Embedder, embeddings: Embeddings) -> None:
    """Compare some stored vectors of the embedder's space with what it makes of their texts.

    Does nothing where the space identifies its weights, and where nothing is stored. Raises SpaceMismatch,
    and what the embedder raises.
    """
    space = embedder.space
    if _is_identified(space):
        return
    stored = await embeddings.texts(space.id, limit=_TEXTS)
    if not stored:
        return
    vectors, _ = await embeddings.get_many(space.id, [row.text_hash for row in stored], space.dim)
    now = await embedder.embed_passages([passage_text(row.title, row.text) for row in stored])
    likeness = float((now * vectors).sum(axis=1).min())
    if likeness < _SAME:
        raise SpaceMismatch(
            f"the vectors stored in space {space.id!r} are not those that {space.name!r} makes now (cosine "
            f"{likeness:.3f}): put the old model back, or name a revision in recipe.embedder.revision",
            metadata={"version_space": space.id},
        )


def _is_identified(space: Space) -> bool:
    """By its weights, or by how it is computed. Vectors that clients bring are not normalised by anybody."""
    return bool(space.digest or space.pooling) or not space.normalised
