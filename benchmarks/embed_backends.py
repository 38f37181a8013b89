"""The back ends that the parts of ``benchmarks.embed`` compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from embedders.base import Embedder
from embedders.registry import open_embedder

DEFAULT: Final = "default"
PLAIN: Final = "float32"
"""The model's own vectors."""
BACKENDS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    DEFAULT: ("sentence_transformer", {"device": "cpu"}),
    PLAIN: ("sentence_transformer", {"device": "cpu", "precision": "float32"}),
    "onnx": ("onnx", {"precision": "float32"}),
    "onnx-int8": ("onnx", {"precision": "int8"}),
}
"""Name -> the registry's kind and its options; all of the default model."""


async def open_backend(name: str, **options: Any) -> Embedder:
    """A back end by its name here."""
    kind, own = BACKENDS[name]
    return await open_embedder(kind, {**own, **options})
