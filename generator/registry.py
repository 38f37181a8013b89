"""The generators by the ``kind`` that a configuration names. A new one is one module and one line here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any, Final, cast

from generator.base import Generator
from ragstone.errors import FailedPrecondition, InvalidArgument

BACKENDS: Final[Mapping[str, str]] = {
    "extractive": "generator.extractive:open_generator",
    "openai_http": "generator.openai_http:open_generator",
    "vllm_engine": "generator.vllm_engine:open_generator",
}
"""``kind`` -> ``module:function``; the module is imported when the kind is first opened."""

Opener = Callable[[Mapping[str, Any]], Awaitable[Generator]]


async def open_generator(kind: str, options: Mapping[str, Any]) -> Generator:
    """Open the generator of ``kind``.

    Raises InvalidArgument for an unknown kind or wrong options, FailedPrecondition when a package that the
    kind needs is not installed.
    """
    target = BACKENDS.get(kind)
    if target is None:
        raise InvalidArgument.at("kind", f"{kind!r} is not one of {', '.join(BACKENDS)}")
    module, _, name = target.partition(":")
    try:
        opener = cast(Opener, getattr(import_module(module), name))
    except ModuleNotFoundError as exc:
        raise FailedPrecondition(f"generator {kind!r} needs the package {exc.name!r}: install it") from exc
    return await opener(options)
