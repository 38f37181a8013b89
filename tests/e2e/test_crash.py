"""``kill -9`` of a real server, at a random moment, under writes from several clients.

Each writer owns some documents and remembers what was acknowledged. After the kill the server starts
again on the same files, and must have exactly the acknowledged documents; of the one request that a
writer had on its way, all or nothing.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ragstone import Client, Document, Recipe
from ragstone.errors import RagstoneError

if TYPE_CHECKING:
    from tests.conftest import MakeServer, RealServer

DIM = 16
OWNED = 12
COMMON = "harbour"
"""A word of every document: one query then finds them all."""
SETTINGS = """
[indexing]
checkpoint_s = 0.2
"""
SMALL = {"freeze_at": 16}
"""Segments of a few rows, so that flushes and merges are under way when the kill comes."""
RECIPES = {
    "flat": Recipe(embedder={"kind": "hashing", "dim": DIM}, index={"kind": "flat", **SMALL}),
    "hnsw": Recipe(
        embedder={"kind": "precomputed", "space": "crash", "dim": DIM}, index={"kind": "hnsw", **SMALL}
    ),
}

Texts = dict[str, str]
Change = Mapping[str, str | None]
"""Document id -> its new text, or None where it is deleted."""


@dataclass
class Writer:
    """One client's writes into one collection, and what it knows of them."""

    collection: str
    number: int
    chance: random.Random
    acknowledged: Texts = field(default_factory=dict)
    on_its_way: Change | None = None
    failure: RagstoneError | None = None
    writes: int = 0

    def run(self, client: Client, killed: threading.Event) -> None:
        """Write until the server is gone. An error while it still ran is a failure."""
        try:
            while True:
                self._write_once(client)
        except RagstoneError as error:
            if not killed.is_set():
                self.failure = error

    def settle(self, stored: Texts) -> None:
        """Compare with what is stored of this writer's documents; learn how its last request ended."""
        mine = {key: text for key, text in stored.items() if key.startswith(f"w{self.number}-")}
        after = changed(self.acknowledged, self.on_its_way or {})
        assert mine in (self.acknowledged, after), (
            f"writer {self.number} in {self.collection}: acknowledged {self.acknowledged}, "
            f"on its way {self.on_its_way}, stored {mine}"
        )
        self.acknowledged, self.on_its_way = mine, None

    def _write_once(self, client: Client) -> None:
        self.writes += 1
        ids = self.chance.sample([f"w{self.number}-{i}" for i in range(OWNED)], self.chance.randint(1, 4))
        wait = self.chance.choice(("committed", "indexed"))
        if self.chance.random() < 0.35:
            self.on_its_way = dict.fromkeys(ids)
            client.delete(self.collection, ids=ids, wait=wait)
        else:
            self.on_its_way = {key: f"{COMMON} {key} revision{self.writes}x{self.number}" for key in ids}
            documents = [
                document(self.collection, key, text) for key, text in self.on_its_way.items() if text
            ]
            client.upsert(self.collection, documents, wait=wait)
        self.acknowledged = changed(self.acknowledged, self.on_its_way)
        self.on_its_way = None


def document(collection: str, key: str, text: str) -> Document:
    return Document(id=key, text=text, vector=vector(text) if collection == "hnsw" else None)


def vector(text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A direction that only this text has."""
    return np.random.default_rng(list(text.encode())).normal(size=DIM).astype(np.float32)


def changed(texts: Texts, change: Change) -> Texts:
    merged = {**texts, **change}
    return {key: text for key, text in merged.items() if text is not None}


def stored_texts(client: Client, collection: str) -> Texts:
    return {found.id: found.text for found in client.list_documents(collection)}


def found_texts(client: Client, collection: str, mode: str) -> Texts:
    """Everything that a search for the common word sees, once the journal is applied."""
    seq = client.get_collection(collection).seq
    brought = vector("any") if collection == "hnsw" else None
    given: dict[str, Any] = {} if mode == "lexical" or brought is None else {"vector": brought}
    result = client.search(collection, COMMON, k=500, depth=500, mode=mode, min_seq=seq, **given)
    assert not result.degraded
    assert len({hit.document_id for hit in result.hits}) == len(result.hits), "a document came twice"
    return {hit.document_id: hit.text for hit in result.hits}


def check_against_model(client: Client, writers: list[Writer]) -> None:
    for collection in RECIPES:
        stored = stored_texts(client, collection)
        for writer in writers:
            if writer.collection == collection:
                writer.settle(stored)
        for mode in ("dense", "lexical", "hybrid"):
            assert found_texts(client, collection, mode) == stored, f"{mode} search of {collection}"
        assert client.get_collection(collection).documents == len(stored)


@pytest.mark.e2e
@pytest.mark.slow
def test_a_killed_server_loses_nothing_acknowledged_and_revives_nothing_deleted(
    make_server: MakeServer, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(20)
    server = make_server(config=SETTINGS)
    server.start()
    with Client(server.address) as client:
        for collection, recipe in RECIPES.items():
            client.create_collection(collection, recipe=recipe)
    writers = [
        Writer(collection=collection, number=number, chance=random.Random(number))
        for number, collection in enumerate([*RECIPES, *RECIPES])
    ]
    for _ in range(request.config.getoption("--crash-rounds")):
        write_until_killed(server, writers, after_s=chance.uniform(0.02, 0.6))
        if chance.random() < 0.2:
            kill_while_it_starts(server, after_s=chance.uniform(0.3, 1.5))
        server.start()
        try:
            with Client(server.address) as client:
                check_against_model(client, writers)
        except AssertionError as error:
            error.add_note(f"the data are in {server.data_dir}; its log ends: {server.log[-5_000:]}")
            raise
    assert min(writer.writes for writer in writers) > 0
    assert server.stop() == 0


def write_until_killed(server: RealServer, writers: list[Writer], *, after_s: float) -> None:
    killed = threading.Event()
    with Client(server.address, timeout=20.0) as client:
        threads = [threading.Thread(target=writer.run, args=(client, killed)) for writer in writers]
        for thread in threads:
            thread.start()
        killed.wait(after_s)
        killed.set()
        server.kill()
        for thread in threads:
            thread.join()
    for writer in writers:
        if writer.failure is not None:
            raise writer.failure


def kill_while_it_starts(server: RealServer, *, after_s: float) -> None:
    """Once more, in the middle of its recovery."""
    server.launch()
    threading.Event().wait(after_s)
    server.kill()
