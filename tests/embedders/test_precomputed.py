"""The space of vectors that clients bring."""

import pytest

from embedders.registry import open_embedder
from ragstone.errors import FailedPrecondition


async def test_the_space_is_the_one_that_the_recipe_names() -> None:
    embedder = await open_embedder("precomputed", {"space": "clip-vit", "dim": 512})
    assert (embedder.space.name, embedder.space.dim) == ("clip-vit", 512)


async def test_text_is_refused_with_what_to_send_instead() -> None:
    embedder = await open_embedder("precomputed", {"space": "clip-vit", "dim": 512})
    with pytest.raises(FailedPrecondition, match="512 numbers"):
        await embedder.embed_queries(["a lighthouse"])
    with pytest.raises(FailedPrecondition, match="own vectors"):
        await embedder.embed_passages(["a lighthouse"])
