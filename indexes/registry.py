"""The kinds of indexes, and where each is opened. A module is imported when its kind is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final, cast

from indexes.base import LexicalIndex, Metric, TokenIndex, VectorIndex
from indexes.directory import Directory
from ragstone.errors import FailedPrecondition, InvalidArgument

DENSE: Final[Mapping[str, str]] = {
    "auto": "indexes.dense.opening:open_index",
    "flat": "indexes.dense.opening:open_index",
    "hnsw": "indexes.dense.opening:open_index",
    "ivf_flat": "indexes.dense.opening:open_index",
    "ivf_pq": "indexes.dense.opening:open_index",
    "cagra": "indexes.dense.opening:open_index",
    "pgvector": "indexes.dense.pgvector:open_index",
    "qdrant": "indexes.dense.qdrant.index:open_index",
    "qdrant_edge": "indexes.dense.qdrant.edge:open_index",
}
LEXICAL: Final[Mapping[str, str]] = {
    "tantivy": "indexes.lexical.tantivy_bm25:open_index",
    "okapi": "indexes.lexical.okapi:open_index",
}
TOKENS: Final[Mapping[str, str]] = {
    "lmdb": "indexes.tokens.lmdb_tokens:open_index",
}
SHARED: Final[Mapping[str, str]] = {
    "pgvector": "indexes.dense.pgvector:drop_index",
    "qdrant": "indexes.dense.qdrant.index:drop_index",
}
"""The kinds, of any leg, that keep what they hold in a store that others share, and what drops one there.

They are opened by a ``name`` beside the other arguments: ``[a-z0-9_]``, at most 50 characters, and no other
index has it.
"""


async def open_dense(
    kind: str,
    *,
    directory: Directory,
    name: str = "",
    dim: int,
    metric: Metric,
    options: Mapping[str, object],
) -> VectorIndex:
    """Open or make a dense index in ``directory``, or as ``name`` in a store that others share.

    Raises InvalidArgument for an unknown kind or option, FailedPrecondition when a package that the kind
    needs is not installed.
    """
    opener = _opener(DENSE, kind, "recipe.index.kind")
    where = _where(kind, directory, name)
    return cast(VectorIndex, await opener(kind, **where, dim=dim, metric=metric, options=options))


async def open_lexical(
    kind: str, *, directory: Directory, name: str = "", options: Mapping[str, object]
) -> LexicalIndex:
    """Open or make a lexical index in ``directory``, or as ``name`` in a store that others share.

    Raises InvalidArgument for an unknown kind or option.
    """
    opener = _opener(LEXICAL, kind, "recipe.lexical.kind")
    return cast(LexicalIndex, await opener(**_where(kind, directory, name), options=options))


async def open_tokens(
    kind: str, *, directory: Directory, name: str = "", dim: int, options: Mapping[str, object]
) -> TokenIndex:
    """Open or make a token index in ``directory``, or as ``name`` in a store that others share.

    Raises InvalidArgument for an unknown kind or option.
    """
    opener = _opener(TOKENS, kind, "recipe.tokens.kind")
    return cast(TokenIndex, await opener(**_where(kind, directory, name), dim=dim, options=options))


async def drop_shared(kind: str, *, name: str, options: Mapping[str, object]) -> None:
    """Remove all that the index ``name`` of a kind in ``SHARED`` holds; one that is not there is no error.

    Nobody in this process has it open. Raises BackendUnavailable when the store does not answer, and what
    ``options`` that no index could be opened with raise.
    """
    await _named(SHARED[kind])(name=name, options=options)


def _where(kind: str, directory: Directory, name: str) -> dict[str, Any]:
    return {"directory": directory, **({"name": name} if kind in SHARED else {})}


def _opener(table: Mapping[str, str], kind: str, field: str) -> Any:
    if kind not in table:
        raise InvalidArgument.at(field, f"{kind!r} is unknown; known: {', '.join(sorted(table))}")
    return _named(table[kind])


def _named(place: str) -> Any:
    module, name = place.split(":")
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as exc:
        raise FailedPrecondition(f"{module} needs the package {exc.name!r}: install it") from exc
