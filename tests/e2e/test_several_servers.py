"""Several real servers over one PostgreSQL catalog: clients that know all of them do not miss a dead one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ragstone import Client, Document, Recipe

if TYPE_CHECKING:
    from tests.conftest import MakeServer

RECIPE = Recipe(embedder={"kind": "hashing", "dim": 16}, index={"kind": "flat"})
WITHIN_S = 60.0


class Reader(threading.Thread):
    """Searches all servers until told to end; ``errors`` is what failed in spite of the client's retries."""

    def __init__(self, addresses: str) -> None:
        super().__init__(daemon=True)
        self.answers = 0
        self.errors: list[Exception] = []
        self._addresses = addresses
        self._ending = threading.Event()

    def run(self) -> None:
        with Client(self._addresses) as client:
            while not self._ending.is_set():
                try:
                    assert len(client.search("docs", "harbour", k=20).hits) == 20
                    self.answers += 1
                except Exception as error:  # noqa: BLE001 - the test shows it
                    self.errors.append(error)

    def end(self) -> None:
        self._ending.set()
        self.join()


@pytest.mark.e2e
@pytest.mark.slow
def test_clients_of_two_servers_see_no_error_when_one_is_killed(
    make_server: MakeServer, postgres: Callable[[], str]
) -> None:
    config = f'database_url = "{postgres()}"\n'
    a, b = (make_server(name, config=config) for name in ("a", "b"))
    a.start()
    with Client(a.address) as client:
        client.create_collection("docs", recipe=RECIPE)
        client.upsert("docs", [Document(id=str(i), text=f"harbour {i}") for i in range(20)])
    b.start()
    readers = [Reader(f"{a.address},{b.address}") for _ in range(4)]
    for reader in readers:
        reader.start()
    _until_all_have_read(readers)
    a.kill()
    _until_all_have_read(readers)
    for reader in readers:
        reader.end()
    assert [error for reader in readers for error in reader.errors] == []
    assert b.stop() == 0


def _until_all_have_read(readers: list[Reader]) -> None:
    """Until each has had a hundred more answers."""
    wanted, tick = [reader.answers + 100 for reader in readers], threading.Event()
    for _ in range(int(WITHIN_S / 0.05)):
        if all(reader.answers >= count for reader, count in zip(readers, wanted, strict=True)):
            return
        tick.wait(0.05)
    raise AssertionError(f"no {wanted} answers: {[(one.answers, one.errors[-1:]) for one in readers]}")
