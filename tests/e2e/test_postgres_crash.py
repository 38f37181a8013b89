"""``kill -9`` of the catalog's PostgreSQL, again and again, under writes: a server outlives its database.

Each writer owns some documents, and repeats a request with its request id until it is acknowledged. In the
end both servers must have exactly what was acknowledged, each document once, with nobody's help.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from ragstone import Client, Document, Recipe
from ragstone.errors import BackendUnavailable, DeadlineExceeded
from tests.postgres import Postgres

if TYPE_CHECKING:
    from tests.conftest import MakeServer

OWNED = 10
COMMON = "harbour"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Postgres]:
    postgres = Postgres(tmp_path / "postgres")
    yield postgres
    postgres.close()


class Writer(threading.Thread):
    """Writes through one server until told to end; what is acknowledged is in ``texts``."""

    def __init__(self, number: int, address: str) -> None:
        super().__init__(daemon=True)
        self.texts: dict[str, str] = {}
        self.acknowledged = 0
        self.failure: BaseException | None = None
        self._number = number
        self._address = address
        self._chance = random.Random(number)
        self._ending = threading.Event()

    def run(self) -> None:
        try:
            with Client(self._address, timeout=10.0) as client:
                while not self._ending.is_set():
                    self._write(client)
                    self.acknowledged += 1
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failure = error

    def end(self) -> None:
        """Let it finish its request."""
        self._ending.set()
        self.join()
        if self.failure is not None:
            raise self.failure

    def _write(self, client: Client) -> None:
        ids = self._chance.sample([f"w{self._number}-{i}" for i in range(OWNED)], self._chance.randint(1, 3))
        if self._chance.random() < 0.3:
            self._until_acknowledged(lambda request: client.delete("docs", ids=ids, request_id=request))
            for key in ids:
                self.texts.pop(key, None)
        else:
            texts = {key: f"{COMMON} {key} revision{self.acknowledged}x{self._number}" for key in ids}
            documents = [Document(id=key, text=text) for key, text in texts.items()]
            self._until_acknowledged(lambda request: client.upsert("docs", documents, request_id=request))
            self.texts |= texts

    def _until_acknowledged(self, send: Callable[[str], object]) -> None:
        request = uuid4().hex
        while True:
            try:
                send(request)
            except (BackendUnavailable, DeadlineExceeded):
                time.sleep(0.05)
            else:
                return


def wait_for_collection(address: str) -> None:
    with Client(address) as client:
        while "docs" not in [collection.name for collection in client.list_collections()]:
            time.sleep(0.05)


def found(client: Client, mode: str) -> list[tuple[str, str]]:
    seq = client.get_collection("docs").seq
    hits = client.search("docs", COMMON, k=500, depth=500, mode=mode, min_seq=seq).hits
    return sorted((hit.document_id, hit.text) for hit in hits)


@pytest.mark.e2e
@pytest.mark.slow
def test_two_servers_outlive_their_database_and_lose_nothing_acknowledged(
    make_server: MakeServer, database: Postgres, request: pytest.FixtureRequest
) -> None:
    servers = [make_server(name, config=f'database_url = "{database.url}"\n') for name in ("a", "b")]
    for server in servers:
        server.start()
    with Client(servers[0].address) as client:
        recipe = Recipe(embedder={"kind": "hashing", "dim": 16}, index={"kind": "flat"})
        client.create_collection("docs", recipe=recipe)
    wait_for_collection(servers[1].address)
    writers = [Writer(number, servers[number % 2].address) for number in range(4)]
    for writer in writers:
        writer.start()
    chance = random.Random(7)
    for _ in range(request.config.getoption("--postgres-kills")):
        time.sleep(chance.uniform(0.2, 1.0))
        database.kill()
        database.start()
        before = [writer.acknowledged for writer in writers]
        while any(writer.acknowledged <= count for writer, count in zip(writers, before, strict=True)):
            assert all(writer.is_alive() for writer in writers)
            time.sleep(0.02)
    for writer in writers:
        writer.end()
    expected = sorted(item for writer in writers for item in writer.texts.items())
    for server in servers:
        with Client(server.address) as client:
            assert (
                sorted((document.id, document.text) for document in client.list_documents("docs")) == expected
            )
            for mode in ("dense", "lexical"):
                assert found(client, mode) == expected
        assert server.stop() == 0
