"""The kinds of indexes, and where each is opened. A module is imported when its kind is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, cast

from indexes.base import LexicalIndex, Metric, TokenIndex, VectorIndex
from indexes.directory import Directory
from ragstone.errors import InvalidArgument

DENSE: Final[Mapping[str, str]] = {
    "auto": "indexes.dense.opening:open_index",
    "flat": "indexes.dense.opening:open_index",
    "hnsw": "indexes.dense.opening:open_index",
    "ivf_flat": "indexes.dense.opening:open_index",
    "ivf_pq": "indexes.dense.opening:open_index",
    "cagra": "indexes.dense.opening:open_index",
}
LEXICAL: Final[Mapping[str, str]] = {
    "tantivy": "indexes.lexical.tantivy_bm25:open_index",
    "okapi": "indexes.lexical.okapi:open_index",
}
TOKENS: Final[Mapping[str, str]] = {
    "lmdb": "indexes.tokens.lmdb_tokens:open_index",
}


async def open_dense(
    kind: str, *, directory: Directory, dim: int, metric: Metric, options: Mapping[str, object]
) -> VectorIndex:
    """Open or make a dense index in ``directory``. Raises InvalidArgument for an unknown kind or option."""
    opener = _opener(DENSE, kind, "recipe.index.kind")
    return cast(VectorIndex, await opener(kind, directory=directory, dim=dim, metric=metric, options=options))


async def open_lexical(kind: str, *, directory: Directory, options: Mapping[str, object]) -> LexicalIndex:
    """Open or make a lexical index in ``directory``. Raises InvalidArgument for an unknown kind or option."""
    opener = _opener(LEXICAL, kind, "recipe.lexical.kind")
    return cast(LexicalIndex, await opener(directory=directory, options=options))


async def open_tokens(
    kind: str, *, directory: Directory, dim: int, options: Mapping[str, object]
) -> TokenIndex:
    """Open or make a token index in ``directory``. Raises InvalidArgument for an unknown kind or option."""
    opener = _opener(TOKENS, kind, "recipe.tokens.kind")
    return cast(TokenIndex, await opener(directory=directory, dim=dim, options=options))


def _opener(table: Mapping[str, str], kind: str, field: str) -> Any:
    if kind not in table:
        raise InvalidArgument.at(field, f"{kind!r} is unknown; known: {', '.join(sorted(table))}")
    module, name = table[kind].split(":")
    return getattr(import_module(module), name)
