"""Every embedder that needs no server keeps the promises of the protocol."""

from collections.abc import Mapping
from typing import Any

import pytest

from embedders.conformance import EMBEDDER_CHECKS, TOKEN_ENCODER_CHECKS, Check
from embedders.registry import open_embedder

LOCAL: Mapping[str, Mapping[str, Any]] = {
    "hashing": {},
    "sentence_transformer": {"device": "cpu", "workers": 2, "batch_tokens": 300},
}


@pytest.mark.parametrize("check", EMBEDDER_CHECKS + TOKEN_ENCODER_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", LOCAL)
async def test_embedder(kind: str, check: Check) -> None:
    await check(lambda: open_embedder(kind, LOCAL[kind]))
