"""The rerankers by the ``kind`` that a recipe names. A new one is one module and one line here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any, Final, cast

from ragstone.errors import FailedPrecondition, InvalidArgument
from rerankers.base import Reranker

BACKENDS: Final[Mapping[str, str]] = {
    "cross_encoder": "rerankers.cross_encoder:open_reranker",
    "rerank_http": "rerankers.rerank_http:open_reranker",
}
"""``kind`` -> ``module:function``; the module is imported when the kind is first opened."""

Opener = Callable[[Mapping[str, Any]], Awaitable[Reranker]]


async def open_reranker(kind: str, options: Mapping[str, Any]) -> Reranker:
    """Open the reranker of ``kind``.

    Raises InvalidArgument for an unknown kind or wrong options, FailedPrecondition when a package that the
    kind needs is not installed, and what the reranker itself raises when its model cannot be loaded.
    """
    target = BACKENDS.get(kind)
    if target is None:
        known = ", ".join(("none", "late_interaction", *BACKENDS))
        raise InvalidArgument.at("recipe.reranker.kind", f"{kind!r} is not one of {known}")
    module, _, name = target.partition(":")
    try:
        opener = cast(Opener, getattr(import_module(module), name))
    except ModuleNotFoundError as exc:
        raise FailedPrecondition(f"reranker {kind!r} needs the package {exc.name!r}: install it") from exc
    return await opener(options)
