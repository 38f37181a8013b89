"""Readers, the one writer, and what a failure leaves behind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from ragstone.errors import (
    BackendUnavailable,
    CorruptIndex,
    Internal,
    InvalidArgument,
    Overloaded,
    RagstoneError,
)
from retrieval.store.database import Database


def insert(name: str, last: int = 0) -> Callable[[Connection], str]:
    """A write that takes a row of its own in the smallest table there is."""

    def work(connection: Connection) -> str:
        statement = text("INSERT INTO sequences (name, last) VALUES (:name, :last)")
        connection.execute(statement, {"name": name, "last": last})
        return name

    return work


def names(connection: Connection) -> set[str]:
    """What the writes of ``insert`` left."""
    return set(connection.execute(text("SELECT name FROM sequences")).scalars())


@pytest.fixture
async def held(db: Database) -> AsyncIterator[threading.Event]:
    """Keeps the writer busy, so that writes pile up, until the event is set."""
    started, release = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        started.set()
        release.wait()

    busy = asyncio.create_task(db.write(work))
    await asyncio.to_thread(started.wait)
    yield release
    release.set()
    await busy


async def started(*writes: asyncio.Task[str]) -> None:
    """Let the tasks run until they wait for the writer."""
    for _ in writes:
        await asyncio.sleep(0)


async def test_write_returns_what_its_work_returns_and_readers_then_see_it(db: Database) -> None:
    assert await db.write(insert("a")) == "a"
    assert "a" in await db.read(names)


async def test_reopened_database_has_what_was_written(url: str) -> None:
    db = await Database.open(url)
    await db.write(insert("a"))
    await db.close()
    assert await reopened(url) == {"a"}


async def test_reader_cannot_write(db: Database) -> None:
    with pytest.raises(RagstoneError):
        await db.read(insert("a"))


async def test_reader_sees_one_snapshot_while_others_write(db: Database) -> None:
    loop = asyncio.get_running_loop()

    def work(connection: Connection) -> tuple[set[str], set[str]]:
        before = names(connection)
        asyncio.run_coroutine_threadsafe(db.write(insert("a")), loop).result()
        return before, names(connection)

    before, after = await db.read(work)
    assert before == after


async def test_waiting_writes_become_visible_together(db: Database, held: threading.Event) -> None:
    seen: list[set[str]] = []
    loop = asyncio.get_running_loop()

    def look(connection: Connection) -> None:
        seen.append(asyncio.run_coroutine_threadsafe(db.read(names), loop).result())

    first = asyncio.create_task(db.write(insert("first")))
    second = asyncio.create_task(db.write(look))
    await asyncio.sleep(0)
    held.set()
    await asyncio.gather(first, second)
    assert "first" not in seen[0]


async def test_a_group_is_bounded(url: str) -> None:
    db = await Database.open(url, group_size=2)
    await asyncio.gather(*(db.write(insert(str(number))) for number in range(7)))
    assert len(await db.read(names)) == 7
    await db.close()


async def test_failing_write_is_undone_alone(db: Database, held: threading.Event) -> None:
    def fail(connection: Connection) -> str:
        insert("bad")(connection)
        raise ValueError("mine")

    tasks = [asyncio.create_task(db.write(work)) for work in (insert("a"), fail, insert("b"))]
    await started(*tasks)
    held.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert (results[0], str(results[1]), results[2]) == ("a", "mine", "b")
    assert await db.read(names) == {"a", "b"}


async def test_wrong_statement_is_an_internal_error_that_does_not_quote_the_data(db: Database) -> None:
    await db.write(insert("secret"))
    with pytest.raises(Internal) as caught:
        await db.write(insert("secret"))
    assert "secret" not in caught.value.message


async def test_full_queue_sheds_and_says_when_to_return(url: str) -> None:
    db = await Database.open(url, queue_size=1)
    begun, release = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        begun.set()
        release.wait()

    busy = asyncio.create_task(db.write(hold))
    await asyncio.to_thread(begun.wait)
    waiting = asyncio.create_task(db.write(insert("a")))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as caught:
        await db.write(insert("b"))
    assert db.waiting == 1
    release.set()
    await asyncio.gather(busy, waiting)
    assert caught.value.retry_after_s
    await db.close()


async def test_write_cancelled_while_it_waits_leaves_no_trace(db: Database, held: threading.Event) -> None:
    task = asyncio.create_task(db.write(insert("a")))
    await started(task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    held.set()
    await db.write(insert("b"))
    assert await db.read(names) == {"b"}


async def test_close_commits_what_waits_and_then_refuses(db: Database, held: threading.Event) -> None:
    task = asyncio.create_task(db.write(insert("a")))
    await started(task)
    closing = asyncio.create_task(db.close())
    held.set()
    await closing
    assert await task == "a"
    with pytest.raises(BackendUnavailable):
        await db.write(insert("b"))
    with pytest.raises(BackendUnavailable):
        await db.read(names)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_full_disk_fails_the_write_whole_and_a_later_one_succeeds(db: Database) -> None:
    def limit(pages: int) -> Callable[[Connection], None]:
        return lambda connection: connection.execute(text(f"PRAGMA max_page_count = {pages}")).close()

    def fill(connection: Connection) -> None:
        for number in range(100):
            insert(f"{number}" + "x" * 4000)(connection)

    pages = await db.write(lambda c: int(c.execute(text("PRAGMA page_count")).scalar_one()))
    await db.write(limit(pages + 5))
    with pytest.raises(BackendUnavailable, match="full"):
        await db.write(fill)
    assert await db.read(names) == set()
    await db.write(limit(100_000))
    await db.write(fill)
    assert len(await db.read(names)) == 100


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_full_disk_fails_all_writes_that_shared_the_commit(db: Database, held: threading.Event) -> None:
    def fail(connection: Connection) -> str:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.execute(text(f"PRAGMA max_page_count = {pages}"))
        return insert("x" * 1_000_000)(connection)

    tasks = [asyncio.create_task(db.write(work)) for work in (insert("a"), fail)]
    await started(*tasks)
    held.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [BackendUnavailable, BackendUnavailable]
    assert await db.read(names) == set()


async def test_another_process_that_holds_the_write_lock_is_waited_for(url: str, db: Database) -> None:
    other = await Database.open(url)
    await asyncio.gather(
        *(d.write(insert(f"{n}{i}")) for i in range(5) for n, d in (("a", db), ("b", other)))
    )
    assert len(await db.read(names)) == 10
    await other.close()


@pytest.mark.parametrize("unusable", ["sqlite://", "sqlite:///:memory:", "mysql://h/d", "nonsense"])
async def test_unusable_url_is_refused(unusable: str) -> None:
    with pytest.raises(InvalidArgument):
        await Database.open(unusable)


async def test_missing_folder_is_reported_as_unavailable(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable):
        await Database.open(f"sqlite:///{tmp_path / 'nowhere' / 'catalog.db'}")


async def test_file_that_is_no_database_is_reported_as_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(CorruptIndex):
        await Database.open(f"sqlite:///{path}")


WRITES_FOR_EVER = """
import asyncio, sys
from sqlalchemy import text
from retrieval.store.database import Database

async def main():
    db = await Database.open(sys.argv[1])
    async def lane(lane):
        for number in range(10**9):
            name = f"{lane}-{number}"
            insert = text("INSERT INTO sequences (name, last) VALUES (:name, 0)")
            await db.write(lambda c: c.execute(insert, {"name": name}).close())
            print(name, flush=True)
    await asyncio.gather(*map(lane, range(8)))

asyncio.run(main())
"""


def test_acknowledged_writes_survive_kill_9(url: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITES_FOR_EVER, url],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    ) as process:
        assert process.stdout is not None
        acknowledged = {process.stdout.readline().strip() for _ in range(200)}
        process.kill()
        acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
    assert acknowledged <= asyncio.run(reopened(url))


async def reopened(url: str) -> set[str]:
    """What a database has after it was closed."""
    db = await Database.open(url)
    try:
        return await db.read(names)
    finally:
        await db.close()
