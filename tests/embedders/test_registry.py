"""Embedders are opened by kind, and wrong options are refused by name."""

from typing import Any

import pytest

from embedders.registry import open_embedder
from ragstone.errors import InvalidArgument


async def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="hashing") as caught:
        await open_embedder("oracle", {})
    assert caught.value.violations[0].field == "recipe.embedder.kind"


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        ("hashing", {"dim": 7}, "dim"),
        ("hashing", {"dims": 8}, "dims"),
        ("precomputed", {"dim": 8}, "space"),
        ("precomputed", {"space": "clip", "dim": 5000}, "dim"),
        ("sentence_transformer", {"device": "tpu"}, "device"),
        ("sentence_transformer", {"workers": 0}, "workers"),
        ("sentence_transformer", {"pooling": "cls"}, "pooling"),
        ("onnx", {"device": "cuda"}, "device"),
        ("onnx", {"precision": "bfloat16"}, "precision"),
        ("sentence_transformer", {"model": "./no/such/folder"}, "model"),
        ("openai_http", {"url": "http://localhost/v1"}, "model"),
        ("openai_http", {"url": "localhost:8000", "model": "m"}, "url"),
        ("openai_http", {"url": "http://me:secret@localhost/v1", "model": "m"}, "url"),
        ("openai_http", {"url": "http://localhost/v1", "model": "m", "api_key": "secret"}, "api_key"),
        ("openai_http", {"url": "http://localhost/v1", "model": "m", "api_key_env": "PATH"}, "api_key_env"),
        ("openai_http", {"url": "http://localhost/v1", "model": "m", "requests_per_s": 0}, "requests_per_s"),
        ("tei", {"address": "http://localhost:80"}, "address"),
        ("tei", {"address": "localhost:80", "too_long": "cut"}, "too_long"),
    ],
)
async def test_wrong_options_are_refused_by_name(kind: str, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await open_embedder(kind, options)
    assert [violation.field for violation in caught.value.violations] == [f"recipe.embedder.{field}"]
