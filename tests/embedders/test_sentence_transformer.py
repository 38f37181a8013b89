"""Sentence Transformers models: the authors' vectors, in less time."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

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
        assert (got * wanted).sum(axis=1).min() >= 0.9999


CPU: Final = frozenset(Path("/proc/cpuinfo").read_text().split())
BFLOAT16: Final = pytest.mark.skipif(
    not ({"avx512bw", "avx512vl", "avx512dq"} <= CPU or "avx_ne_convert" in CPU),
    reason="this CPU has no bfloat16 in PyTorch",
)


@pytest.mark.parametrize(
    ("precision", "least"),
    [("float32", 0.99999), pytest.param("bfloat16", 0.9999, marks=BFLOAT16)],
)
async def test_a_precision_that_was_asked_for_is_used_and_agrees(
    precision: str, least: float, original: SentenceTransformer
) -> None:
    embedder = await open_embedder("sentence_transformer", {"device": "cpu", "precision": precision})
    try:
        got = await embedder.embed_passages(TEXTS)
    finally:
        await embedder.close()
    agreement = (got * original.encode(TEXTS, normalize_embeddings=True)).sum(axis=1).min()
    assert agreement >= least
    assert (agreement < 0.99999) == (precision == "bfloat16")


async def test_a_precision_whose_vectors_are_not_the_models_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("embedders.forward._AGREEMENT", {torch.bfloat16: 1.1})
    with pytest.raises(InvalidArgument, match="precision: no pass in bfloat16"):
        await open_embedder("sentence_transformer", {"device": "cpu", "precision": "bfloat16"})


@pytest.mark.asyncio(loop_scope="session")
async def test_a_row_of_a_batch_is_the_row_of_its_text_alone(minilm: Embedder) -> None:
    together = await minilm.embed_passages(TEXTS)
    alone = np.concatenate([await minilm.embed_passages([text]) for text in TEXTS])
    assert (together * alone).sum(axis=1).min() >= 0.9999


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
    assert (got * wanted).sum(axis=1).min() >= 0.9999
    assert (embedder.space.query_prompt, embedder.space.max_tokens) == ("query: ", 16)


async def test_a_smaller_dimension_is_the_beginning_of_the_vector_and_another_space(
    minilm: Embedder, original: SentenceTransformer
) -> None:
    embedder = await open_embedder(
        "sentence_transformer", {"device": "cpu", "dim": 64, "precision": "float32"}
    )
    try:
        got = await embedder.embed_queries(TEXTS)
    finally:
        await embedder.close()
    wanted = original.encode(TEXTS, normalize_embeddings=True, truncate_dim=64)
    assert (got * wanted).sum(axis=1).min() >= 0.99999
    assert embedder.space.dim == 64
    assert embedder.space.id != minilm.space.id


async def test_more_dimensions_than_the_model_has_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="384 numbers"):
        await open_embedder("sentence_transformer", {"device": "cpu", "dim": 512})


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    """A small random model that is no BERT and does not pool by the mean."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("distilled")
    config = DistilBertConfig(vocab_size=30_522, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
    DistilBertModel(config).save_pretrained(folder / "base")
    AutoTokenizer.from_pretrained(find_weights(DEFAULT_MODEL).path).save_pretrained(folder / "base")
    body = Transformer(str(folder / "base"), max_seq_length=64)
    return SentenceTransformer(modules=[body, Pooling(32, pooling_mode="cls")], device="cpu")


async def test_other_architectures_and_poolings_are_computed_as_their_authors_do(
    distilled: SentenceTransformer, tmp_path: Path
) -> None:
    distilled.save(str(tmp_path / "distilled"))
    embedder = await open_embedder(
        "sentence_transformer", {"device": "cpu", "model": str(tmp_path / "distilled")}
    )
    try:
        got = await embedder.embed_passages(TEXTS)
    finally:
        await embedder.close()
    wanted = distilled.encode(TEXTS, normalize_embeddings=True)
    assert (got * wanted).sum(axis=1).min() >= 0.9999
    space = embedder.space
    assert (space.name, space.pooling, space.max_tokens) == ("distilled", "cls", 64)


async def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(InvalidArgument, match="model"):
        await open_embedder("sentence_transformer", {"model": str(tmp_path)})


async def test_more_tokens_than_the_model_has_positions_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="512 positions"):
        await open_embedder("sentence_transformer", {"device": "cpu", "max_tokens": 1024})
