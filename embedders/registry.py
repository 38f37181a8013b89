"""The embedders by the ``kind`` that a recipe names. A new one is one module and one line here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any, Final, cast

from embedders.base import Embedder
from ragstone.errors import FailedPrecondition, InvalidArgument

BACKENDS: Final[Mapping[str, str]] = {
    "sentence_transformer": "embedders.sentence_transformer:open_embedder",
    "onnx": "embedders.onnx:open_embedder",
    "openai_http": "embedders.openai_http:open_embedder",
    "tei": "embedders.tei:open_embedder",
    "hashing": "embedders.hashing:open_embedder",
    "precomputed": "embedders.precomputed:open_embedder",
}
"""``kind`` -> ``module:function``; the module is imported when the kind is first opened."""

Opener = Callable[[Mapping[str, Any]], Awaitable[Embedder]]


async def open_embedder(kind: str, options: Mapping[str, Any]) -> Embedder:
    """Open the embedder of ``kind``.

    Raises InvalidArgument for an unknown kind or wrong options, FailedPrecondition when a package that the
    kind needs is not installed, and what the embedder itself raises when its model cannot be loaded.
    """
    target = BACKENDS.get(kind)
    if target is None:
        raise InvalidArgument.at("recipe.embedder.kind", f"{kind!r} is not one of {', '.join(BACKENDS)}")
    module, _, name = target.partition(":")
    try:
        opener = cast(Opener, getattr(import_module(module), name))
    except ModuleNotFoundError as exc:
        raise FailedPrecondition(f"embedder {kind!r} needs the package {exc.name!r}: install it") from exc
    return await opener(options)
