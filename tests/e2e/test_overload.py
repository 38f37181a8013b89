"""An embedder that cannot keep up, behind a real server: who is refused, with what, and what comes after."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from ragstone import AsyncClient, Document, Mode, SearchResult
from ragstone.errors import Overloaded

if TYPE_CHECKING:
    from tests.conftest import MakeServer

pytestmark = pytest.mark.e2e

ONE_AT_A_TIME = """
[recipe.embedder]
kind = "sentence_transformer"
workers = 1
batch_tokens = 16
queue_tokens = 300

[limits]
query_vectors = 0
"""
LONG = "lighthouse " * 100
"""Two or three such queries may wait."""


async def test_a_search_that_is_shed_is_told_when_to_come_back_and_others_are_answered(
    make_server: MakeServer,
) -> None:
    server = make_server(config=ONE_AT_A_TIME)
    server.start()
    async with AsyncClient(server.address) as client:
        await client.create_collection("docs")
        await client.upsert("docs", [Document(id="1", text="a lighthouse on the coast")], timeout=60.0)
        ends = await asyncio.gather(
            *(client.search("docs", f"{i} {LONG}", mode=Mode.DENSE, timeout=60.0) for i in range(64)),
            return_exceptions=True,
        )
        shed = [end for end in ends if isinstance(end, Overloaded)]
        answered = [end for end in ends if isinstance(end, SearchResult)]
        assert shed
        assert answered
        assert len(shed) + len(answered) == len(ends)
        assert all(error.retry_after_s is not None and error.retry_after_s > 0 for error in shed)
        later = await client.search("docs", LONG, mode=Mode.DENSE, timeout=60.0)
    assert [hit.document_id for hit in later.hits] == ["1"]
    assert server.stop() == 0
