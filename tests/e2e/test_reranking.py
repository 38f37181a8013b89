"""Reranking through a real server: a cross-encoder of its own, and one behind HTTP that hangs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ragstone import Client, Document, Recipe
from tests.rerankers.servers import Fault, RerankServer
from tests.rerankers.train_cross_encoder import SAME

pytestmark = pytest.mark.e2e

HASHING = {"kind": "hashing", "dim": 64}
# No passage has the question's own word: only who knows both words finds it.
DOCUMENTS = [
    Document(id=asked, text=f"long ago the {told} was old and small .") for asked, told in SAME.items()
]


@pytest.fixture
def hanging() -> Iterator[RerankServer]:
    made = RerankServer("cohere")
    made.always = Fault(hang=True)
    yield made
    made.close()


def test_a_cross_encoder_finds_what_neither_words_nor_vectors_do(
    client: Client, name: str, cross_encoder: Path
) -> None:
    reranker = {"kind": "cross_encoder", "model": str(cross_encoder), "device": "cpu", "weight": 1.0}
    client.create_collection(name, recipe=Recipe(embedder=HASHING, reranker=reranker))
    client.upsert(name, DOCUMENTS)
    for asked in SAME:
        result = client.search(name, f"where is the {asked} ?", k=len(SAME), explain=True)
        assert result.degraded == ()
        assert result.hits[0].document_id == asked
        assert result.hits[0].legs[-1].leg == "rerank"
    texts = ["every morning the vessel was found again .", "every morning the boulder was found again ."]
    scored = client.rerank(name, "where is the ship ?", texts)
    assert scored.complete
    assert scored.scores[0] > scored.scores[1]


def test_a_reranker_that_hangs_costs_the_reranking_and_not_the_answer(
    client: Client, name: str, hanging: RerankServer
) -> None:
    reranker = {"kind": "rerank_http", "url": hanging.url}
    client.create_collection(name, recipe=Recipe(embedder=HASHING, reranker=reranker))
    client.upsert(name, DOCUMENTS)
    # A client whose deadline had passed would raise DeadlineExceeded.
    result = client.search(name, "what was old and small?", timeout=3.0)
    assert result.degraded == ("rerank",)
    assert result.hits == client.search(name, "what was old and small?", rerank=False).hits
    assert hanging.requests
