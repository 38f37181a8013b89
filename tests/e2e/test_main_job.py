"""The main job through a real server: documents go in over gRPC, cited passages come out."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ragstone import Citation, Client, Contexts, Document, Done, Health, Recipe, TextDelta, Usage

if TYPE_CHECKING:
    from tests.conftest import MakeServer

pytestmark = pytest.mark.e2e

PASSAGES = {
    "tempfile": "TemporaryDirectory creates a temporary directory and deletes it, with all it holds, at the "
    "end of the with block.",
    "subprocess": "subprocess.run starts a program, waits for it, and captures its output when asked to.",
    "gather": "asyncio.gather waits for several coroutines at the same time and returns their results.",
    "hafen": "Der Hafen von Hamburg ist einer der größten Häfen Europas.",
}
QUESTION = "How do I create a temporary directory that deletes itself?"


def documents() -> list[Document]:
    return [
        Document(
            id=key, text=text, metadata={"lang": "de" if key == "hafen" else "en", "year": 2020 + number}
        )
        for number, (key, text) in enumerate(PASSAGES.items())
    ]


@pytest.fixture
def docs(client: Client, name: str) -> str:
    """A collection with the default recipe, so with the real model, that holds the passages."""
    client.create_collection(name)
    client.upsert(name, documents())
    return name


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_every_mode_finds_the_passage_that_answers(client: Client, docs: str, mode: str) -> None:
    result = client.search(docs, QUESTION, k=3, mode=mode, explain=True, timeout=30.0)
    best = result.hits[0]
    assert best.document_id == "tempfile"
    assert best.text == PASSAGES["tempfile"]
    assert {leg.leg for leg in best.legs} == {
        "rerank",
        *({"dense", "lexical"} if mode == "hybrid" else {mode}),
    }
    assert not result.degraded


def test_a_filter_holds_in_every_mode(client: Client, docs: str) -> None:
    for mode in ("hybrid", "dense", "lexical"):
        result = client.search(
            docs, "Hafen directory", k=10, mode=mode, filter='lang = "de" AND year >= 2020'
        )
        assert [hit.document_id for hit in result.hits] == ["hafen"]


def test_an_answer_is_a_typed_stream_whose_citations_lie_in_their_documents(
    client: Client, docs: str
) -> None:
    events = list(client.answer(docs, QUESTION))
    assert isinstance(events[0], Contexts)
    assert isinstance(events[-1], Done)
    assert any(isinstance(event, Usage) for event in events)
    answer = "".join(event.text for event in events if isinstance(event, TextDelta))
    citations = [event for event in events if isinstance(event, Citation)]
    assert "deletes it" in answer
    assert citations
    for cited in citations:
        assert PASSAGES[cited.document_id][cited.start : cited.end] == cited.quote


def test_clients_may_bring_their_own_vectors(client: Client, name: str) -> None:
    rows = np.eye(8, dtype=np.float32)
    own = Recipe(embedder={"kind": "precomputed", "space": "my-model-v1", "dim": 8}, index={"kind": "hnsw"})
    client.create_collection(name, recipe=own)
    written = client.upsert(
        name, [Document(id=str(number), text=f"row {number}", vector=row) for number, row in enumerate(rows)]
    )
    result = client.search(name, vector=rows[2], k=2, mode="dense", min_seq=written.seq)
    assert result.hits[0].document_id == "2"
    assert result.hits[0].score == pytest.approx(1.0)
    client.delete(name, ids=["2"])
    after = client.search(name, vector=rows[2], k=10, mode="dense")
    assert {hit.document_id for hit in after.hits} == {str(number) for number in range(8)} - {"2"}


def test_replacing_a_document_leaves_nothing_of_the_old_one(client: Client, docs: str) -> None:
    client.upsert(docs, [Document(id="tempfile", text="Lighthouses guide ships at night.")])
    for mode in ("hybrid", "dense", "lexical"):
        texts = {hit.text for hit in client.search(docs, QUESTION, k=10, mode=mode).hits}
        assert PASSAGES["tempfile"] not in texts


def test_the_same_documents_again_change_nothing(client: Client, docs: str) -> None:
    before = client.get_collection(docs).seq
    result = client.upsert(docs, documents())
    assert (result.documents, result.unchanged) == (0, len(PASSAGES))
    assert client.get_collection(docs).seq == before


def test_pages_neither_repeat_nor_lose_a_hit(client: Client, docs: str) -> None:
    pages = list(client.search_pages(docs, QUESTION, k=2, mode="dense"))
    found = [hit.document_id for page in pages for hit in page.hits]
    assert sorted(found) == sorted(PASSAGES)


def test_a_stopped_server_says_so_ends_well_and_serves_the_same_again(make_server: MakeServer) -> None:
    server = make_server(config="drain_s = 1.0\n")
    server.start()
    recipe = Recipe(embedder={"kind": "hashing", "dim": 16})
    with Client(server.address) as client:
        client.create_collection("docs", recipe=recipe)
        client.upsert("docs", documents())
        before = client.search("docs", QUESTION, k=4)
        server.terminate()
        assert wait_until_not_serving(client)
    assert server.wait() == 0
    server.start()
    with Client(server.address) as client:
        after = client.search("docs", QUESTION, k=4)
        assert after.hits == before.hits
        assert (after.seq, after.version, after.space) == (before.seq, before.version, before.space)
    assert server.stop() == 0


def wait_until_not_serving(client: Client) -> bool:
    """Ask for the health, while the server drains, until it is no longer SERVING."""
    pause = threading.Event()
    for _ in range(100):
        if client.health() is Health.NOT_SERVING:
            return True
        pause.wait(0.05)
    return False
