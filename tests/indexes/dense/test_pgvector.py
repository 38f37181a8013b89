"""An index in PostgreSQL: options, answers like the local ones, two servers, a database that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
import psycopg
import pytest
from pyroaring import BitMap64

from indexes.base import Metric, SearchParams, VectorBatch
from indexes.conformance import DIM, batch_of, clustered, removal_of
from indexes.dense.pgvector import PgvectorIndex, drop_index, open_index
from indexes.dense.pgvector import index as pgvector_index
from indexes.directory import LocalDirectory
from indexes.registry import open_dense
from ragstone.errors import (
    BackendUnavailable,
    CorruptIndex,
    FailedPrecondition,
    InvalidArgument,
    Overloaded,
    RagstoneError,
)
from tests.postgres import Postgres

EXACT = SearchParams(exact=True)
QUERIES = clustered(8, seed=5)


class Open(Protocol):
    """Opens the index ``name`` as one of some servers does; all that a test opened are closed after it."""

    async def __call__(
        self,
        name: str = "first",
        metric: Metric = Metric.COSINE,
        *,
        dim: int = DIM,
        server: int = 1,
        **options: Any,
    ) -> PgvectorIndex: ...


@pytest.fixture
def url(postgres_server: Postgres) -> str:
    """An empty database."""
    return postgres_server.create_database()


@pytest.fixture
async def opened(url: str, tmp_path: Path) -> AsyncIterator[Open]:
    made: list[PgvectorIndex] = []

    async def opened(
        name: str = "first",
        metric: Metric = Metric.COSINE,
        *,
        dim: int = DIM,
        server: int = 1,
        **options: Any,
    ) -> PgvectorIndex:
        given = {"url": url, **options}
        made.append(
            await open_index(
                "pgvector",
                directory=LocalDirectory(tmp_path / f"{name}-{server}"),
                name=name,
                dim=dim,
                metric=metric,
                options=given,
            )
        )
        return made[-1]

    yield opened
    for index in made:
        await index.close()


@pytest.fixture(scope="module")
def mortal_server(tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres) -> Iterator[Postgres]:
    """A server of this module's own. Where there can be none, ``postgres_server`` says so."""
    server = Postgres(tmp_path_factory.mktemp("mortal"))
    yield server
    server.close()


@pytest.fixture
def own_server(mortal_server: Postgres) -> Iterator[Postgres]:
    """A server to be killed; it runs again after the test."""
    yield mortal_server
    mortal_server.start()


def tables(url: str) -> set[str]:
    """The tables that are in a database."""
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {name for (name,) in rows}


# -- options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"url": "mysql://host/db"}, "recipe.index.url"),
        ({"url": "host=here dbname=db"}, "recipe.index.url"),
        ({"url": "postgresql://host/db?nonsense=1"}, "recipe.index.url"),
        ({"url": "postgresql://me:secret@host/db"}, "recipe.index.url"),
        ({"url": "postgresql://me@host/db?password=secret"}, "recipe.index.url"),
        ({"password_env": "HOME"}, "recipe.index.password_env"),
        ({"method": "tree"}, "recipe.index.method"),
        ({"method": "exact", "m": 16}, "recipe.index.m"),
        ({"method": "hnsw", "lists": 16}, "recipe.index.lists"),
        ({"m": 64, "ef_construction": 100}, "recipe.index"),
        ({"ef_search": 1_001}, "recipe.index.ef_search"),
        ({"storage": "int8"}, "recipe.index.storage"),
        ({"pool": 0}, "recipe.index.pool"),
        ({"timeout_s": 0}, "recipe.index.timeout_s"),
    ],
)
async def test_a_wrong_option_is_named_and_no_secret_repeated(
    opened: Open, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await opened(**options)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("dim", "options", "right"),
    [
        (2_001, {}, "float16 takes 4,000"),
        (4_001, {"storage": "float16"}, "method 'exact' 16,000"),
        (2_001, {"method": "ivfflat"}, "float16 takes 4,000"),
        (16_001, {"method": "exact"}, "16,000"),
    ],
)
async def test_more_dimensions_than_a_method_takes_are_refused_with_what_is_right(
    opened: Open, dim: int, options: dict[str, Any], right: str
) -> None:
    with pytest.raises(InvalidArgument, match=right):
        await opened(dim=dim, **options)


async def test_a_password_that_is_not_in_the_environment_is_missed(opened: Open) -> None:
    with pytest.raises(FailedPrecondition, match="NOBODY_SET_PASSWORD is not set"):
        await opened(password_env="NOBODY_SET_PASSWORD")


async def test_an_index_of_other_vectors_is_refused(opened: Open) -> None:
    await opened(metric=Metric.COSINE)
    with pytest.raises(FailedPrecondition, match=f"made for dimension {DIM}, cosine"):
        await opened(metric=Metric.L2)


async def test_a_name_that_is_no_identifier_never_reaches_a_statement(opened: Open, url: str) -> None:
    with pytest.raises(RagstoneError):
        await opened('x"; DROP TABLE ragstone_indexes; --')
    assert tables(url) == set()


async def test_a_database_that_is_not_there_is_refused(opened: Open, postgres_server: Postgres) -> None:
    with pytest.raises((FailedPrecondition, BackendUnavailable), match="does not exist"):
        await opened(url=postgres_server.url_of("nowhere"))


async def test_an_extension_that_may_not_be_created_is_asked_for(
    opened: Open, postgres_server: Postgres, url: str
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS nobody")
        connection.execute("CREATE ROLE nobody LOGIN")
    with pytest.raises(FailedPrecondition, match="no extension 'vector'"):
        await opened(url=url.replace("postgres@", "nobody@"))


# -- the same answers as the local index --------------------------------------------------------------


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("options", [{"method": "exact"}, {"storage": "float16"}], ids=["exact", "float16"])
async def test_exact_answers_are_those_of_the_local_flat_index(
    opened: Open, metric: Metric, options: dict[str, Any], tmp_path: Path
) -> None:
    index = await opened(metric=metric, **options)
    local = await open_dense(
        "flat", directory=LocalDirectory(tmp_path / "local"), dim=DIM, metric=metric, options={}
    )
    vectors = clustered(3_000)
    vectors[500:600] = vectors[7]
    batches = [
        batch_of(vectors[:2_000]),
        batch_of(vectors[2_000:], first=2_000, deleted=np.arange(0, 2_000, 7)),
        removal_of(3, 4, 2_500),
    ]
    for seq, batch in enumerate(batches, start=1):
        await index.apply(batch, seq=seq)
        await local.apply(batch, seq=seq)
    await index.compact()
    queries = np.concatenate([QUERIES, vectors[7:8]])
    for allow in (None, BitMap64(range(0, 3_000, 2)), BitMap64(range(100, 140)), BitMap64([9_999])):
        for k in (1, 10, 150):
            here = await index.search(queries, k, allow=allow, params=EXACT)
            there = await local.search(queries, k, allow=allow, params=EXACT)
            assert here.keys.tolist() == there.keys.tolist()
            assert np.allclose(here.scores, there.scores, rtol=1e-5, atol=1e-5)
    await local.close()


async def test_a_large_table_is_walked_and_ties_are_in_the_order_of_their_keys(opened: Open) -> None:
    vectors = clustered(5_000)
    vectors[1_000:1_200] = vectors[7]
    index = await opened(ef_search=40)
    await index.apply(batch_of(vectors), seq=1)
    assert index.explain(5) == "scans the table"
    await index.compact()
    assert index.explain(5) == "hnsw for 13 rows, ef_search = 40"
    found = await index.search(vectors[7:8], 5)
    assert found.keys.tolist() == [[7, 1_000, 1_001, 1_002, 1_003]]


async def test_a_statement_of_a_large_table_uses_its_index(opened: Open, url: str) -> None:
    index = await opened()
    await index.apply(batch_of(clustered(12_000)), seq=1)
    await index.compact()
    for allow in (None, BitMap64(range(8_000)), BitMap64(range(1_000))):
        await index.search(QUERIES, 10, allow=allow)
    # What a session counted is seen by others when it ends.
    await index.close()
    with psycopg.connect(url) as connection:
        used = connection.execute(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'first_index'"
        ).fetchone()
    # The last filter allows so few that they are picked.
    assert used == (2 * len(QUERIES),)


# -- upkeep --------------------------------------------------------------------------------------------


async def test_a_table_gets_its_index_by_itself_when_its_load_is_over(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector_index, "_SETTLE_S", 0.05)
    index = await opened()
    await index.apply(batch_of(clustered(3_000)), seq=1)
    assert await index.checkpoint() == 1
    async with asyncio.timeout(60):
        while index.stats().details["building"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert index.stats().details["indexed"]
    assert index.stats().details["last_error"] == ""


async def test_compacting_does_not_wait_for_a_load_to_be_over(opened: Open) -> None:
    index = await opened()
    await index.apply(batch_of(clustered(3_000)), seq=1)
    await index.checkpoint()
    assert index.stats().details["building"]
    await index.compact()
    assert index.stats().details["indexed"]


async def test_what_a_broken_build_left_is_built_anew(opened: Open, url: str) -> None:
    index = await opened()
    await index.apply(batch_of(clustered(3_000)), seq=1)
    await index.compact()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'first_index'::regclass"
        )
    await index.checkpoint()
    assert not index.stats().details["indexed"]
    await index.compact()
    assert index.stats().details["indexed"]


async def test_a_build_that_closing_breaks_off_is_begun_anew(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pgvector_index, "_SETTLE_S", 0.0)
    index = await opened()
    await index.apply(batch_of(clustered(20_000)), seq=1)
    await index.checkpoint()
    await asyncio.sleep(0.2)
    assert index.stats().details["building"]
    await index.close()
    index = await opened()
    assert not index.stats().details["indexed"]
    await index.compact()
    assert index.stats().details["indexed"]


async def test_many_deleted_rows_do_not_hide_the_others(opened: Open) -> None:
    vectors, index = clustered(12_000), await opened(ef_search=40)
    await index.apply(batch_of(vectors), seq=1)
    await index.compact()
    near = (await index.search(vectors[:1], 1_000)).keys[0]
    await index.apply(removal_of(*near.tolist()), seq=2)
    found = await index.search(vectors[:1], 10)
    exact = await index.search(vectors[:1], 10, params=EXACT)
    assert len(np.intersect1d(found.keys, exact.keys)) >= 8


async def test_an_index_takes_room_and_leaves_none(opened: Open, url: str) -> None:
    index = await opened()
    await index.apply(batch_of(clustered(1_000)), seq=1)
    await index.checkpoint()
    assert index.stats().bytes_on_disk > 1_000 * DIM * 4
    other = await opened("second")
    await drop_index(name="first", options={"url": url})
    await drop_index(name="first", options={"url": url})
    assert tables(url) == {"ragstone_indexes", "second"}
    await other.apply(removal_of(1), seq=1)


async def test_a_table_that_somebody_dropped_is_damage(opened: Open, url: str) -> None:
    index = await opened()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE first")
    with pytest.raises(CorruptIndex):
        await index.search(QUERIES, 3)
    assert index.stats().damage
    with pytest.raises(CorruptIndex):
        await opened()


# -- two servers on one table ----------------------------------------------------------------------------


async def test_two_servers_apply_each_step_once(opened: Open) -> None:
    one, other = await opened(server=1), await opened(server=2)
    vectors = clustered(200)
    await one.apply(batch_of(vectors[:100]), seq=1)
    await other.apply(batch_of(vectors[:100]), seq=1)
    await other.apply(batch_of(vectors[100:], first=100, deleted=np.array([1, 2])), seq=2)
    await one.apply(batch_of(vectors[100:], first=100, deleted=np.array([1, 2])), seq=2)
    for index in (one, other):
        assert (index.applied_seq, index.stats().live) == (2, 198)
        assert (await index.search(vectors[150:151], 1)).keys.tolist() == [[150]]


async def test_a_server_that_is_behind_takes_nothing_back(opened: Open) -> None:
    ahead, behind = await opened(server=1), await opened(server=2)
    await ahead.apply(batch_of(clustered(10)), seq=1)
    await ahead.apply(removal_of(3), seq=2)
    await behind.apply(batch_of(clustered(10)), seq=1)
    assert behind.applied_seq == 2
    assert behind.stats().live == 9


async def test_one_server_builds_and_the_others_find_it_built(opened: Open) -> None:
    one, other = await opened(server=1), await opened(server=2)
    await one.apply(batch_of(clustered(3_000)), seq=1)
    await one.compact()
    await other.checkpoint()
    assert other.stats().details["indexed"]


# -- a database that goes away ---------------------------------------------------------------------------


async def test_a_database_that_is_killed_loses_nothing_and_the_index_recovers(
    opened: Open, own_server: Postgres
) -> None:
    index, vectors = await opened(url=own_server.create_database()), clustered(300)
    for seq in range(1, 4):
        first = 100 * (seq - 1)
        await index.apply(batch_of(vectors[first : first + 100], first=first), seq=seq)
        own_server.kill()
        own_server.start()
    found = await index.search(vectors, 1)
    assert found.keys[:, 0].tolist() == list(range(300))
    assert await index.checkpoint() == 3


async def test_a_database_that_is_killed_during_writes_has_each_of_them_once(
    opened: Open, own_server: Postgres
) -> None:
    index, vectors = await opened(url=own_server.create_database()), clustered(2_000)

    async def write() -> None:
        for seq in range(1, 101):
            first = 20 * (seq - 1)
            batch = batch_of(vectors[first : first + 20], first=first, deleted=np.array([first - 20]).clip(0))
            while index.applied_seq < seq:
                try:
                    await index.apply(batch, seq=seq)
                except BackendUnavailable:
                    await asyncio.sleep(0.01)

    writing = asyncio.create_task(write())
    for _ in range(3):
        await asyncio.sleep(0.1)
        await asyncio.to_thread(own_server.kill)
        await asyncio.to_thread(own_server.start)
    await writing
    everything = await index.search(QUERIES[:1], 2_000, params=EXACT)
    found = everything.keys[0][everything.keys[0] >= 0]
    assert sorted(found.tolist()) == [key for key in range(2_000) if key % 20 or key == 1_980]
    assert index.stats().live == len(found)


async def test_a_database_that_is_away_is_said_so_and_asked_again_when_it_is_back(
    opened: Open, own_server: Postgres
) -> None:
    index = await opened(url=own_server.create_database())
    await index.apply(batch_of(clustered(10)), seq=1)
    own_server.kill()
    for _ in range(5):
        with pytest.raises(BackendUnavailable):
            await index.search(QUERIES, 3)
    with pytest.raises(BackendUnavailable, match="asked again in"):
        await index.apply(removal_of(1), seq=2)
    own_server.start()
    await answers_again(index)
    await index.apply(removal_of(1), seq=2)
    assert index.stats().live == 9


async def test_a_database_that_stands_still_costs_its_timeout_and_no_more(
    opened: Open, own_server: Postgres
) -> None:
    index = await opened(url=own_server.create_database(), timeout_s=0.2, connect_timeout_s=0.2)
    await index.apply(batch_of(clustered(10)), seq=1)
    own_server.freeze()
    try:
        with pytest.raises(BackendUnavailable):
            await index.search(QUERIES, 3)
        with pytest.raises(BackendUnavailable):
            await index.apply(removal_of(1), seq=2)
    finally:
        own_server.thaw()
    await answers_again(index)
    await index.apply(removal_of(1), seq=2)
    assert (index.applied_seq, index.stats().live) == (2, 9)


async def test_an_index_opens_while_its_database_is_away(opened: Open, own_server: Postgres) -> None:
    url = own_server.create_database()
    index = await opened(url=url)
    await index.apply(batch_of(clustered(10)), seq=3)
    await index.checkpoint()
    await index.close()
    own_server.kill()
    index = await opened(url=url)
    assert (index.applied_seq, index.stats().live) == (3, 10)
    with pytest.raises(BackendUnavailable):
        await index.search(QUERIES, 3)
    own_server.start()
    await answers_again(index)


async def test_an_index_that_was_never_open_does_not_open_while_its_database_is_away(
    opened: Open, own_server: Postgres
) -> None:
    url = own_server.create_database()
    own_server.kill()
    with pytest.raises(BackendUnavailable):
        await opened(url=url)
    own_server.start()


async def test_a_statement_that_takes_too_long_does_not_shut_the_others_out(opened: Open, url: str) -> None:
    index = await opened(timeout_s=0.2)
    await index.apply(batch_of(clustered(10)), seq=1)
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE first IN ACCESS EXCLUSIVE MODE")
        for _ in range(4):
            with pytest.raises(Overloaded):
                await index.search(QUERIES[:1], 3)
    assert (await index.search(QUERIES[:1], 3)).keys.shape == (1, 3)


async def answers_again(index: PgvectorIndex) -> None:
    """Search until there is an answer."""
    for _ in range(600):
        try:
            await index.search(QUERIES, 1)
        except BackendUnavailable:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("the index did not recover")


async def test_a_database_that_has_lost_what_it_committed_is_damaged(opened: Open, url: str) -> None:
    index = await opened()
    await index.apply(batch_of(clustered(10)), seq=7)
    await index.checkpoint()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE ragstone_indexes SET applied_seq = 5")
    with pytest.raises(CorruptIndex, match="lost what it had committed"):
        await index.apply(removal_of(1), seq=8)
    assert index.stats().damage
    with pytest.raises(CorruptIndex, match="lost what it had committed"):
        await opened()


async def test_a_closed_index_refuses(opened: Open) -> None:
    index = await opened()
    await index.close()
    with pytest.raises(FailedPrecondition):
        await index.search(QUERIES, 1)


async def test_a_batch_of_nothing_moves_the_position(opened: Open) -> None:
    index = await opened(f"i_{uuid4().hex}")
    nothing = VectorBatch(np.empty(0, np.int64), np.empty((0, DIM), np.float32), np.empty(0, np.int64))
    await index.apply(nothing, seq=4)
    assert index.applied_seq == 4
