"""``kill -9`` of a real server at random moments of a rebuild, under writes: it always comes to its end."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Final

import pytest

from ragstone import Client, Document, Recipe
from ragstone.errors import RagstoneError

if TYPE_CHECKING:
    from tests.conftest import MakeServer, RealServer

SETTINGS: Final = """
[indexing]
checkpoint_s = 0.1
batch_chunks = 64
"""
COLLECTION: Final = "docs"
SERVING: Final = Recipe(embedder={"kind": "hashing", "dim": 32}, index={"kind": "flat"})
MOVES: Final = (
    Recipe(embedder={"kind": "hashing", "dim": 48}, chunker={"max_tokens": 32, "overlap_tokens": 0}),
    Recipe(index={"kind": "hnsw", "freeze_at": 64}, chunker={"max_tokens": 64, "overlap_tokens": 8}),
    Recipe(embedder={"kind": "hashing", "dim": 32}, index={"kind": "ivf_pq", "shards": 2}),
)
DOCUMENTS: Final = 300


def text_of(number: int, revision: int) -> str:
    """Long enough for some chunks, none equal to another: a graph of equal texts has recall by luck."""
    sentences = " ".join(f"Word {n} of harbour {number} stands." for n in range(30))
    return f"Harbour {number} revision {revision}. {sentences}"


class Model:
    """What has to be there: a document is acknowledged in some revision, or deleted."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.stored: dict[str, str] = {}
        self.unsure: dict[str, str | None] = {}
        """What the request that the kill met wanted."""

    def write_until_killed(self, client: Client, killed: threading.Event) -> None:
        """One small write after the other. An error while the server still runs is a failure."""
        revision = 0
        while not killed.is_set():
            revision += 1
            number = self.chance.randrange(DOCUMENTS)
            document_id = str(number)
            wanted = None if self.chance.random() < 0.3 else text_of(number, revision)
            self.unsure = {document_id: wanted}
            try:
                if wanted is None:
                    client.delete(COLLECTION, ids=[document_id])
                else:
                    client.upsert(COLLECTION, [Document(id=document_id, text=wanted)])
            except RagstoneError:
                assert killed.is_set(), "a write failed while the server ran"
                return
            self._settle(document_id, wanted)

    def learn(self, client: Client) -> None:
        """How the last request of before the kill ended."""
        now = {found.id: found.text for found in client.list_documents(COLLECTION)}
        for document_id, wanted in self.unsure.items():
            assert now.get(document_id) in (wanted, self.stored.get(document_id))
            self._settle(document_id, now.get(document_id))
        self.unsure = {}
        assert now == self.stored

    def _settle(self, document_id: str, text: str | None) -> None:
        if text is None:
            self.stored.pop(document_id, None)
        else:
            self.stored[document_id] = text
        self.unsure = {}


def check_search(client: Client, model: Model) -> None:
    """Both legs find exactly the stored revisions."""
    seq = client.get_collection(COLLECTION).seq
    for mode in ("dense", "lexical"):
        result = client.search(COLLECTION, "harbour", k=1_000, depth=10_000, mode=mode, min_seq=seq)
        found = {hit.document_id for hit in result.hits}
        token = result.next_page_token
        while token:
            result = client.search(COLLECTION, "harbour", k=1_000, depth=10_000, mode=mode, page_token=token)
            found |= {hit.document_id for hit in result.hits}
            token = result.next_page_token
        assert found == set(model.stored), mode


def kill_at_a_random_moment(server: RealServer, model: Model, after_s: float) -> None:
    killed = threading.Event()
    with Client(server.address, timeout=20.0) as client:
        writer = threading.Thread(target=model.write_until_killed, args=(client, killed))
        writer.start()
        time.sleep(after_s)
        killed.set()
        server.kill()
        writer.join()


@pytest.mark.e2e
@pytest.mark.slow
def test_a_rebuild_that_is_killed_again_and_again_ends_with_exactly_what_was_written(
    make_server: MakeServer, request: pytest.FixtureRequest
) -> None:
    server, model = make_server(config=SETTINGS), Model(seed=7)
    server.start()
    with Client(server.address) as client:
        client.create_collection(COLLECTION, recipe=SERVING)
        model.stored = {str(n): text_of(n, 0) for n in range(DOCUMENTS)}
        client.upsert(COLLECTION, [Document(id=key, text=text) for key, text in model.stored.items()])
    rounds = request.config.getoption("--rebuild-rounds")
    for number in range(rounds):
        move = MOVES[number % len(MOVES)]
        with Client(server.address) as client:
            name = client.create_version(COLLECTION, move).name
        for _ in range(model.chance.randint(1, 3)):
            kill_at_a_random_moment(server, model, after_s=model.chance.uniform(0.0, 0.8))
            server.start()
            with Client(server.address) as client:
                model.learn(client)
        with Client(server.address, timeout=60.0) as client:
            [*_, last] = client.watch_version(COLLECTION, name)
            assert (last.state, last.reason) == ("ready", "")
            before = client.get_collection(COLLECTION).serving.name
            client.promote(COLLECTION, name)
            check_search(client, model)
            client.delete_version(COLLECTION, before)
    assert server.stop() == 0
