"""Every lexical index passes every conformance check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from indexes.base import LexicalIndex
from indexes.directory import LocalDirectory
from indexes.lexical import okapi, tantivy_bm25
from indexes.lexical.conformance import LEXICAL_INDEX_CHECKS, Check

OPENERS: dict[str, Callable[..., Awaitable[LexicalIndex]]] = {
    "tantivy": tantivy_bm25.open_index,
    "okapi": okapi.open_index,
}


@pytest.mark.parametrize("check", LEXICAL_INDEX_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", OPENERS)
async def test_lexical_index(name: str, check: Check, tmp_path: Path) -> None:
    async def opener() -> LexicalIndex:
        return await OPENERS[name](directory=LocalDirectory(tmp_path / "index"), options={})

    await check(opener)
