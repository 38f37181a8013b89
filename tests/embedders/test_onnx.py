"""ONNX Runtime: the same vectors from a graph that is exported once; int8 is a space of its own."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel

from embedders.base import Embedder, TokenEncoder
from embedders.onnx_graphs import GraphCache, export
from embedders.onnx_int8 import int8_is_exact, quantise
from embedders.registry import open_embedder
from embedders.weights import DEFAULT_MODEL, find_weights
from ragstone.errors import InvalidArgument

TEXTS = [
    "",
    "harbour",
    "When did the harbour of Lindholm freeze?",
    "A lighthouse guides ships past rocks. " * 12,
    "word " * 700,
]
WIDTH = 32


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "ragstone" / "onnx"


def small_model(*others: nn.Module, pooling: str = "cls", folder: Path) -> SentenceTransformer:
    """A random BERT, which exports in a fraction of the real one's time."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30_522,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder / "base")
    AutoTokenizer.from_pretrained(find_weights(DEFAULT_MODEL).path).save_pretrained(folder / "base")
    body = Transformer(str(folder / "base"), max_seq_length=64)
    return SentenceTransformer(modules=[body, Pooling(WIDTH, pooling_mode=pooling), *others], device="cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, SentenceTransformer]:
    folder = tmp_path_factory.mktemp("small")
    model = small_model(folder=folder)
    model.save(str(folder / "small"))
    return str(folder / "small"), model


def graphs(cache: Path) -> set[Path]:
    return set(cache.iterdir())


async def open_onnx(model: str, **options: Any) -> Embedder:
    return await open_embedder("onnx", {"model": model, "workers": 1, **options})


async def passages(options: Mapping[str, Any], model: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    embedder = await open_onnx(model, **options)
    try:
        return await embedder.embed_passages(TEXTS)
    finally:
        await embedder.close()


async def test_in_float32_vectors_and_space_are_those_of_the_model(minilm: Embedder) -> None:
    embedder = await open_embedder("onnx", {"workers": 1})
    original = SentenceTransformer(str(find_weights(DEFAULT_MODEL).path), device="cpu")
    try:
        got = await embedder.embed_passages(TEXTS)
    finally:
        await embedder.close()
    assert (got * original.encode(TEXTS, normalize_embeddings=True)).sum(axis=1).min() >= 0.99999
    assert embedder.space.id == minilm.space.id


@pytest.mark.parametrize("pooling", ["cls", "max", "mean"])
async def test_the_models_own_modules_are_in_the_graph(pooling: str, tmp_path: Path) -> None:
    dense = Dense(in_features=WIDTH, out_features=16)
    model = small_model(dense, Normalize(), pooling=pooling, folder=tmp_path)
    model.save(str(tmp_path / "dense"))
    got = await passages({}, str(tmp_path / "dense"))
    assert (got * model.encode(TEXTS, normalize_embeddings=True)).sum(axis=1).min() >= 0.99999


async def test_the_options_of_sentence_transformer_apply(small: tuple[str, SentenceTransformer]) -> None:
    folder, model = small
    got = await passages({"passage_prompt": "passage: ", "dim": 8, "max_tokens": 16}, folder)
    prompted = ["passage: " + text for text in TEXTS[:3]]
    wanted = model.encode(prompted, normalize_embeddings=True, truncate_dim=8)
    assert (got[:3] * wanted).sum(axis=1).min() >= 0.99999


async def test_token_vectors_come_out_of_the_same_pass(small: tuple[str, SentenceTransformer]) -> None:
    folder, model = small
    embedder = await open_onnx(folder)
    assert isinstance(embedder, TokenEncoder)
    try:
        encoded = await embedder.encode_passages(TEXTS[:3])
    finally:
        await embedder.close()
    tokens = model.encode(TEXTS[:3], output_value="token_embeddings")
    for one, wanted in zip(encoded, tokens, strict=True):
        unit = torch.nn.functional.normalize(wanted, dim=-1).numpy()
        assert (one.tokens * unit).sum(axis=1).min() >= 0.99999


# -- int8 --------------------------------------------------------------------------------------


@pytest.mark.skipif(not int8_is_exact(), reason="this CPU is not exact in int8")
async def test_int8_is_another_space_near_the_models_own(small: tuple[str, SentenceTransformer]) -> None:
    folder, model = small
    whole, quantised = await open_onnx(folder), await open_onnx(folder, precision="int8")
    try:
        got = await quantised.embed_passages(TEXTS)
    finally:
        await whole.close()
        await quantised.close()
    agreement = (got * model.encode(TEXTS, normalize_embeddings=True)).sum(axis=1)
    assert 0.98 <= agreement.min() < 0.99999
    assert quantised.space.id != whole.space.id


def test_every_product_by_weights_is_quantised_and_none_by_activations(
    small: tuple[str, SentenceTransformer],
) -> None:
    _, products = quantise(export(small[1], "small"))
    assert products == 2 * 6


async def test_a_cpu_that_saturates_in_int8_is_refused(
    small: tuple[str, SentenceTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedders.onnx.int8_is_exact", lambda: False)
    with pytest.raises(InvalidArgument, match=r"precision: .*float32"):
        await open_onnx(small[0], precision="int8")


@pytest.mark.skipif("avx512_vnni" not in Path("/proc/cpuinfo").read_text(), reason="needs AVX-512 VNNI")
def test_a_cpu_with_vnni_is_exact_in_int8() -> None:
    assert int8_is_exact()


# -- the cache ---------------------------------------------------------------------------------


async def test_a_second_start_exports_nothing(
    small: tuple[str, SentenceTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await passages({}, small[0])

    def never(*_: object) -> bytes:
        raise AssertionError("exported again")

    monkeypatch.setattr("embedders.onnx.export", never)
    np.testing.assert_array_equal(await passages({}, small[0]), first)


async def test_a_model_with_other_settings_is_another_graph(
    small: tuple[str, SentenceTransformer], cache: Path, tmp_path: Path
) -> None:
    await passages({}, small[0])
    before = graphs(cache)
    mean = small_model(pooling="mean", folder=tmp_path)
    mean.save(str(tmp_path / "mean"))
    got = await passages({}, str(tmp_path / "mean"))
    assert (got * mean.encode(TEXTS, normalize_embeddings=True)).sum(axis=1).min() >= 0.99999
    assert len(graphs(cache) - before) == 1


def test_a_damaged_graph_is_made_anew(tmp_path: Path) -> None:
    kept = GraphCache(tmp_path)
    kept.get("key", lambda: b"graph")
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"grapf")
    assert kept.get("key", lambda: b"graph") == b"graph"
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"graph"]


def test_a_graph_that_cannot_be_kept_is_used_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    assert GraphCache(tmp_path / "file" / "onnx").get("key", lambda: b"graph") == b"graph"


# -- models that do not fit ----------------------------------------------------------------------


class Branching(nn.Module):
    """Computes what depends on the values of the ids, which no graph can."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        vectors = features["input_ids"].float()
        if float(vectors.sum()) > 100:
            vectors = vectors * 2
        return {**features, "sentence_embedding": vectors, "token_embeddings": vectors.unsqueeze(-1)}


def test_a_model_that_cannot_be_exported_is_refused_with_what_runs_it() -> None:
    with pytest.raises(InvalidArgument, match=r"Branches does not run in ONNX .*sentence_transformer"):
        export(SentenceTransformer(modules=[Branching()], device="cpu"), "Branches")


def test_weights_that_no_file_of_onnx_holds_are_refused(
    small: tuple[str, SentenceTransformer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedders.onnx_graphs._LARGEST", 1_000)
    with pytest.raises(InvalidArgument, match=r"over 2 GiB.*sentence_transformer"):
        export(small[1], "small")


async def test_a_graph_whose_vectors_are_not_the_models_is_refused(
    small: tuple[str, SentenceTransformer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = export(small_model(pooling="mean", folder=tmp_path), "other")
    monkeypatch.setattr("embedders.onnx.export", lambda *_: other)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InvalidArgument, match=r"cosine .* with the model's own vectors"):
        await open_onnx(small[0])
