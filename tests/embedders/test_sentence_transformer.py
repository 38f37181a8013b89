"""Sentence Transformers models: the authors' vectors, in less time."""

from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embedders.base import Embedder
from embedders.registry import open_embedder
from embedders.weights import DEFAULT_MODEL, find_weights
from ragstone.errors import InvalidArgument

TEXTS = [
    "",
    "harbour",
    "When did the harbour of Lindholm freeze?",
    "A lighthouse guides ships past rocks. " * 12,
    "word " * 700,
    "灯台は海岸に立つ。 Der Hafen fror zu; l'hiver fut rude.",
    "  spaces \t and\nlines  ",
]


@pytest.fixture(scope="module")
def original() -> SentenceTransformer:
    return SentenceTransformer(str(find_weights(DEFAULT_MODEL).path), device="cpu")


@pytest.mark.asyncio(loop_scope="session")
async def test_vectors_are_those_of_sentence_transformers(
    minilm: Embedder, original: SentenceTransformer
) -> None:
    wanted = original.encode(TEXTS, normalize_embeddings=True)
    for got in (await minilm.embed_queries(TEXTS), await minilm.embed_passages(TEXTS)):
        assert (got * wanted).sum(axis=1).min() >= 0.99999


@pytest.mark.asyncio(loop_scope="session")
async def test_the_space_names_the_published_model(minilm: Embedder) -> None:
    space = minilm.space
    assert (space.name, space.dim, space.pooling, space.max_tokens) == (DEFAULT_MODEL, 384, "mean", 256)


@pytest.mark.asyncio(loop_scope="session")
async def test_the_tokenizer_counts_beyond_the_truncation_length(minilm: Embedder) -> None:
    assert minilm.tokenizer is not None
    assert len(minilm.tokenizer.encode("word " * 700).ids) == 702


async def test_prompts_and_truncation_make_another_space_and_other_vectors(
    original: SentenceTransformer,
) -> None:
    options: dict[str, Any] = {"device": "cpu", "query_prompt": "query: ", "max_tokens": 16, "workers": 1}
    embedder = await open_embedder("sentence_transformer", options)
    try:
        query = await embedder.embed_queries(["harbour"])
        passage = await embedder.embed_passages(["harbour", "word " * 700])
    finally:
        await embedder.close()
    wanted = original.encode(["query: harbour", "harbour", "word " * 14], normalize_embeddings=True)
    got = np.concatenate([query, passage])
    assert (got * wanted).sum(axis=1).min() >= 0.99999
    assert (embedder.space.query_prompt, embedder.space.max_tokens) == ("query: ", 16)


async def test_more_tokens_than_the_model_has_positions_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="512 positions"):
        await open_embedder("sentence_transformer", {"device": "cpu", "max_tokens": 1024})
