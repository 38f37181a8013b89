"""What indexes in Qdrant do beside the checks of every index: as flat ones do, broken off, and away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from pyroaring import BitMap64
from qdrant_client import grpc as wire

from indexes.base import Metric, Neighbours, SearchParams, VectorBatch, VectorIndex
from indexes.conformance import DIM, NONE, batch_of, clustered, removal_of
from indexes.dense.position import Position, remember
from indexes.dense.qdrant.collection import Collection
from indexes.dense.qdrant.has_id import encoded
from indexes.dense.qdrant.index import QdrantIndex
from indexes.directory import LocalDirectory
from indexes.registry import drop_shared, open_dense
from ragstone.errors import BackendUnavailable, CorruptIndex, FailedPrecondition, InvalidArgument
from tests.qdrant_server import QdrantServer

EXACT: Final = SearchParams(exact=True)
Open = Callable[..., Awaitable[Any]]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the index of a kind in ``tmp_path``; all that a test opened are closed after it."""
    made: list[VectorIndex] = []

    async def opened(
        kind: str, metric: Metric = Metric.COSINE, *, dim: int = DIM, **options: object
    ) -> VectorIndex:
        if kind == "qdrant" and "url" not in options:
            options = {"path": str(tmp_path / "store"), **options}
        directory = LocalDirectory(tmp_path / kind)
        made.append(
            await open_dense(kind, directory=directory, name="one", dim=dim, metric=metric, options=options)
        )
        return made[-1]

    yield opened
    for index in made:
        await index.close()


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def alike(found: Neighbours, expected: Neighbours) -> None:
    assert found.keys.tolist() == expected.keys.tolist()
    finite = np.isfinite(expected.scores)
    np.testing.assert_allclose(found.scores[finite], expected.scores[finite], rtol=0, atol=1e-5)


# -- like a flat index ---------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("kind", ["qdrant", "qdrant_edge"])
async def test_keys_and_scores_are_those_of_a_flat_index(kind: str, metric: Metric, opened: Open) -> None:
    indexes = [await opened("flat", metric), await opened(kind, metric)]
    vectors = clustered(1_500)
    vectors[700:740] = vectors[13]
    for index in indexes:
        await index.apply(batch_of(vectors), seq=1)
        await index.apply(removal_of(*range(0, 1_500, 7)), seq=2)
        await index.apply(batch_of(clustered(50, seed=3), first=5_000, deleted=np.array([720, 5])), seq=3)
    flat, other = indexes
    queries = np.concatenate([clustered(20, seed=8), vectors[13:14]])
    filters = [None, BitMap64([705, 13, 2]), BitMap64(range(100, 1_400)), BitMap64(range(0, 6_000, 2))]
    for allow in filters:
        for k in (1, 10, 100):
            expected = await flat.search(queries, k, allow=allow, params=EXACT)
            alike(await other.search(queries, k, allow=allow, params=EXACT), expected)


async def test_a_graph_of_the_embedded_engine_answers_like_one(opened: Open) -> None:
    index = await opened("qdrant_edge", graph_at=1_000)
    await index.apply(batch_of(clustered(3_000)), seq=1)
    await index.compact()
    assert index.stats().details["in_graphs"] == 3_000
    assert "walks" in index.explain(10)
    queries = clustered(50, seed=4)
    exact = await index.search(queries, 10, params=EXACT)
    found = await index.search(queries, 10, params=SearchParams(effort=100))
    assert np.mean([len(np.intersect1d(*rows)) for rows in zip(found.keys, exact.keys, strict=True)]) > 9.5


@pytest.mark.parametrize("quantization", ["scalar", "binary", "product"])
async def test_quantised_hits_have_the_scores_of_whole_vectors(quantization: str, opened: Open) -> None:
    index = await opened("qdrant_edge", quantization=quantization)
    await index.apply(batch_of(clustered(2_000)), seq=1)
    await index.compact()
    queries = clustered(5, seed=4)
    found = await index.search(queries, 5)
    exact = await index.search(queries, 2_000, params=EXACT)
    for row in range(5):
        scores = dict(zip(exact.keys[row].tolist(), exact.scores[row].tolist(), strict=True))
        for key, score in zip(found.keys[row].tolist(), found.scores[row].tolist(), strict=True):
            assert score == pytest.approx(scores[key], abs=1e-5)


@pytest.mark.parametrize("kind", ["qdrant", "qdrant_edge"])
async def test_a_filter_is_sent_as_the_shorter_list_of_ids(kind: str, opened: Open) -> None:
    index = await opened(kind)
    await index.apply(batch_of(clustered(100)), seq=1)
    assert "among all 100 points" in index.explain(10)
    assert "among all 100 points" in index.explain(10, allow=BitMap64(range(1_000)))
    assert "among 20 points by id" in index.explain(10, allow=BitMap64(range(20)))
    assert "among all points but 20 by id" in index.explain(10, allow=BitMap64(range(20, 1_000)))


def test_ids_on_the_wire_are_what_the_client_would_send() -> None:
    edges = [each for bit in range(63) for each in (2**bit - 1, 2**bit, 2**bit + 1)]
    ids = BitMap64({*edges[:-1], 300, 2**63 - 1})
    expected = wire.HasIdCondition(has_id=[wire.PointId(num=each) for each in ids])
    assert wire.HasIdCondition.FromString(encoded(ids)) == expected
    assert encoded(BitMap64()) == b""


@pytest.mark.parametrize("kind", ["qdrant", "qdrant_edge"])
async def test_hits_are_filtered_here_where_that_moves_less(kind: str, opened: Open) -> None:
    index, vectors = await opened(kind, Metric.L2), clustered(1_000)
    await index.apply(batch_of(vectors), seq=1)
    allow = BitMap64(range(300, 1_000))
    assert "filters the best 26 of all points" in index.explain(10, allow=allow)
    # The nearest of all are not allowed: what follows has to be asked for.
    crowd = np.repeat(vectors[:1], 250, axis=0)
    await index.apply(VectorBatch(np.arange(250), crowd, NONE), seq=2)
    found = await index.search(vectors[:1], 10, allow=allow)
    distances = ((vectors[300:] - vectors[0]) ** 2).sum(axis=1)
    assert found.keys[0].tolist() == (300 + np.argsort(distances)[:10]).tolist()


# -- graphs of the embedded engine ---------------------------------------------------------------------


async def test_what_is_written_while_graphs_are_built_is_kept(opened: Open, tmp_path: Path) -> None:
    index = await opened("qdrant_edge")
    vectors = clustered(2_000)
    await index.apply(batch_of(vectors[:1_000]), seq=1)
    building = asyncio.create_task(index.compact())
    seq = 1
    while not building.done():
        seq += 1
        await index.apply(
            batch_of(vectors[998 + seq : 999 + seq], first=998 + seq, deleted=np.array([seq])), seq=seq
        )
        await asyncio.sleep(0.01)
    await building
    live = sorted({*range(999 + seq)} - {*range(2, seq + 1)})
    assert index.stats().live == len(live)
    await index.close()
    again = await opened("qdrant_edge")
    assert again.applied_seq == seq
    found = await again.search(vectors[:1], 2_000, params=EXACT)
    assert sorted(key for key in found.keys[0].tolist() if key >= 0) == live


async def test_an_index_that_is_closed_while_graphs_are_built_is_as_it_was(
    opened: Open, tmp_path: Path
) -> None:
    index = await opened("qdrant_edge", graph_at=500)
    await index.apply(batch_of(clustered(3_000)), seq=1)
    await asyncio.sleep(0.05)
    await index.close()
    again = await opened("qdrant_edge", graph_at=10**6)
    assert (again.applied_seq, again.stats().live) == (1, 3_000)
    assert len([path for path in (tmp_path / "qdrant_edge").iterdir() if path.is_dir()]) == 1


async def test_a_build_that_fails_is_told_and_the_index_goes_on(
    opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index = await opened("qdrant_edge")
    await index.apply(batch_of(clustered(100)), seq=1)
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('no room')")
    monkeypatch.setattr("indexes.dense.qdrant.generations._PROGRAM", broken)
    with pytest.raises(BackendUnavailable, match="no room"):
        await index.compact()
    await index.apply(batch_of(clustered(100, seed=1), first=100), seq=2)
    monkeypatch.undo()
    await index.compact()
    assert index.stats().details["in_graphs"] == 200


@pytest.mark.parametrize("torn", ["CURRENT.json", "segment.json"])
async def test_damage_of_the_embedded_engines_files_is_reported(
    torn: str, opened: Open, tmp_path: Path
) -> None:
    index = await opened("qdrant_edge")
    await index.apply(batch_of(clustered(100)), seq=1)
    await index.checkpoint()
    await index.close()
    for path in (tmp_path / "qdrant_edge").rglob(torn):
        path.write_bytes(b"{")
    with pytest.raises(CorruptIndex):
        await opened("qdrant_edge")


async def test_an_embedded_index_is_open_once(opened: Open) -> None:
    await opened("qdrant_edge")
    with pytest.raises(FailedPrecondition):
        await opened("qdrant_edge")


# -- steps that a crash broke off ----------------------------------------------------------------------


class Crash(Exception):
    """The process ends here."""


@pytest.mark.parametrize("method", ["upsert", "delete", "set_position"])
async def test_a_step_that_was_half_done_is_done_again_in_full(
    method: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    index: QdrantIndex = await opened("qdrant", batch=10)
    await index.apply(batch_of(clustered(40)), seq=1)
    real, calls = getattr(Collection, method), 0

    async def crashing(self: Collection, *args: object) -> None:
        nonlocal calls
        calls += 1
        if method != "upsert" or calls == 2:
            raise Crash
        await real(self, *args)

    monkeypatch.setattr(Collection, method, crashing)
    step = batch_of(clustered(30, seed=1), first=100, deleted=np.arange(10))
    with pytest.raises(Crash):
        await index.apply(step, seq=2)
    monkeypatch.undo()
    await index.close()
    again = await opened("qdrant", batch=10)
    assert again.applied_seq == 1
    await again.apply(step, seq=2)
    found = await again.search(clustered(1), 100, params=EXACT)
    assert sorted(key for key in found.keys[0].tolist() if key >= 0) == [*range(10, 40), *range(100, 130)]


async def test_a_batch_that_qdrant_has_in_part_is_in_no_answer(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    index: QdrantIndex = await opened("qdrant", batch=10)
    await index.apply(batch_of(clustered(40)), seq=1)
    before = await index.search(clustered(1), 100)
    real, calls = Collection.upsert, 0

    async def away(self: Collection, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise BackendUnavailable("away")
        await real(self, *args)

    monkeypatch.setattr(Collection, "upsert", away)
    with pytest.raises(BackendUnavailable):
        await index.apply(batch_of(clustered(30, seed=1), first=100, deleted=np.arange(10)), seq=2)
    during = await index.search(clustered(1), 100)
    assert during.keys.tolist() == before.keys.tolist()


async def test_nothing_leaves_before_a_search_that_is_to_see_it_has_ended(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    index: QdrantIndex = await opened("qdrant")
    await index.apply(batch_of(clustered(40)), seq=1)
    asked, go_on = asyncio.Event(), asyncio.Event()
    real = Collection.query

    async def slow(self: Collection, *args: Any) -> Any:
        asked.set()
        await go_on.wait()
        return await real(self, *args)

    monkeypatch.setattr(Collection, "query", slow)
    searching = asyncio.create_task(index.search(clustered(1), 100))
    await asked.wait()
    removing = asyncio.create_task(index.apply(removal_of(*range(20)), seq=2))
    await asyncio.sleep(0.05)
    go_on.set()
    assert ((await searching).keys[0] >= 0).sum() == 40
    await removing
    assert ((await index.search(clustered(1), 100)).keys[0] >= 0).sum() == 20


async def test_a_checkpoint_beside_a_write_finds_no_damage(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    index: QdrantIndex = await opened("qdrant")
    await index.apply(batch_of(clustered(10)), seq=1)
    real = Collection.position

    async def overtaken(self: Collection) -> int:
        seq = await real(self)
        await index.apply(removal_of(1), seq=2)
        return seq

    monkeypatch.setattr(Collection, "position", overtaken)
    assert await index.checkpoint() == 2
    assert index.stats().damage == ""


# -- the store -----------------------------------------------------------------------------------------


async def test_a_dropped_index_is_gone_and_dropping_it_again_is_no_error(
    opened: Open, tmp_path: Path
) -> None:
    index = await opened("qdrant")
    await index.apply(batch_of(clustered(10)), seq=1)
    await index.close()
    for _ in range(2):
        await drop_shared("qdrant", name="one", options={"path": str(tmp_path / "store")})
    assert (await opened("qdrant")).applied_seq == 0


@pytest.mark.parametrize("kind", ["qdrant", "qdrant_edge"])
async def test_an_index_that_was_made_for_other_vectors_is_refused(kind: str, opened: Open) -> None:
    await (await opened(kind, Metric.L2)).close()
    with pytest.raises(FailedPrecondition, match=str(DIM)):
        await opened(kind, Metric.L2, dim=DIM + 1)
    with pytest.raises(FailedPrecondition):
        await opened(kind, Metric.INNER_PRODUCT)


async def test_a_server_that_is_not_there_is_told_by_name(closed_port: int, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"Qdrant at http://127\.0\.0\.1"):
        await drop_shared("qdrant", name="one", options=at(closed_port, timeout_s=5))


async def test_a_server_that_never_answers_is_given_up_in_time(silent: int, tmp_path: Path) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(BackendUnavailable, match=r"0\.3 s"):
            await open_dense(
                "qdrant",
                directory=LocalDirectory(tmp_path),
                name="one",
                dim=DIM,
                metric=Metric.L2,
                options=at(silent, timeout_s=0.3),
            )


@pytest.fixture
async def server() -> AsyncIterator[QdrantServer]:
    server = QdrantServer()
    await server.start()
    yield server
    await server.stop()


async def test_an_index_goes_on_when_its_server_is_back(server: QdrantServer, opened: Open) -> None:
    index = await opened("qdrant", Metric.L2, **at(server.port, timeout_s=5, failures=3, open_s=0.2))
    await index.apply(batch_of(clustered(40)), seq=1)
    await server.stop()
    step = batch_of(clustered(20, seed=1), first=40, deleted=np.arange(5))
    for _ in range(5):
        with pytest.raises(BackendUnavailable):
            await index.search(clustered(1), 10)
        with pytest.raises(BackendUnavailable):
            await index.apply(step, seq=2)
    await server.start()
    async with asyncio.timeout(30):
        while index.applied_seq < 2:
            with suppress(BackendUnavailable):
                await index.apply(step, seq=2)
            await asyncio.sleep(0.05)
    found = await index.search(clustered(1), 100)
    assert sorted(key for key in found.keys[0].tolist() if key >= 0) == list(range(5, 60))


async def test_an_index_opens_while_its_server_is_away_if_it_was_open_before(
    server: QdrantServer, opened: Open
) -> None:
    options = at(server.port, timeout_s=5, failures=100)
    index = await opened("qdrant", Metric.L2, **options)
    await index.apply(batch_of(clustered(40)), seq=1)
    assert await index.checkpoint() == 1
    await index.close()
    await server.stop()
    again = await opened("qdrant", Metric.L2, **options)
    assert (again.applied_seq, again.stats().live) == (1, 40)
    with pytest.raises(BackendUnavailable):
        await again.search(clustered(1), 10)
    await server.start()
    async with asyncio.timeout(30):
        while again.applied_seq < 2:
            with suppress(BackendUnavailable):
                await again.apply(removal_of(3), seq=2)
            await asyncio.sleep(0.05)
    assert again.stats().live == 39


async def test_a_store_that_comes_back_with_less_is_damaged(server: QdrantServer, opened: Open) -> None:
    index = await opened("qdrant", Metric.L2, **at(server.port))
    await index.apply(batch_of(clustered(40)), seq=1)
    await index.checkpoint()
    await index.close()
    await drop_shared("qdrant", name="one", options=at(server.port))
    with pytest.raises(CorruptIndex, match="up to 0 only"):
        await opened("qdrant", Metric.L2, **at(server.port))


async def test_a_server_that_is_away_is_asked_no_more_for_a_while(server: QdrantServer, opened: Open) -> None:
    index = await opened("qdrant", Metric.L2, **at(server.port, failures=2, open_s=600))
    await index.apply(batch_of(clustered(40)), seq=1)
    await server.stop()
    for _ in range(2):
        with pytest.raises(BackendUnavailable):
            await index.search(clustered(1), 10)
    await server.start()
    with pytest.raises(BackendUnavailable, match="it is asked again in"):
        await index.search(clustered(1), 10)


async def test_a_collection_that_somebody_removed_is_damage(server: QdrantServer, opened: Open) -> None:
    index = await opened("qdrant", Metric.L2, **at(server.port))
    await index.apply(batch_of(clustered(40)), seq=1)
    await drop_shared("qdrant", name="one", options=at(server.port))
    with pytest.raises(CorruptIndex, match="one"):
        await index.search(clustered(1), 10)
    assert "has lost" in index.stats().damage


async def test_all_who_wait_for_a_silent_server_are_told_in_time(silent: int, tmp_path: Path) -> None:
    directory = LocalDirectory(tmp_path)
    remember(directory, Position(applied_seq=3, live=10))
    options = at(silent, timeout_s=0.4, failures=1_000)
    index = await open_dense(
        "qdrant", directory=directory, name="one", dim=DIM, metric=Metric.L2, options=options
    )
    async with asyncio.timeout(4):
        searches = [index.search(clustered(1), 10) for _ in range(20)]
        answers = await asyncio.gather(*searches, return_exceptions=True)
    assert {type(answer) for answer in answers} == {BackendUnavailable}
    await index.close()


def at(port: int, **options: object) -> dict[str, object]:
    return {"url": "http://127.0.0.1", "grpc_port": port, **options}


# -- options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        ("qdrant", {}, "recipe.index"),
        ("qdrant", {"url": "http://here", "path": "/there"}, "recipe.index"),
        ("qdrant", {"url": "ftp://here"}, "recipe.index.url"),
        ("qdrant", {"url": "http://me:secret@here:6333"}, "recipe.index.url"),
        ("qdrant", {"url": "http://here", "api_key_env": "secret"}, "recipe.index.api_key_env"),
        ("qdrant", {"url": "http://here", "quantization": "ternary"}, "recipe.index.quantization"),
        ("qdrant", {"url": "http://here", "shard_number": 0}, "recipe.index.shard_number"),
        ("qdrant", {"url": "http://here", "graph_at": 3}, "recipe.index.graph_at"),
        ("qdrant_edge", {"url": "http://here"}, "recipe.index.url"),
        ("qdrant_edge", {"m": 1_000}, "recipe.index.m"),
    ],
)
async def test_a_wrong_option_is_refused_by_its_field(
    kind: str, options: dict[str, object], field: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await open_dense(
            kind,
            directory=LocalDirectory(tmp_path),
            name="one",
            dim=DIM,
            metric=Metric.L2,
            options=options,
        )
    assert [violation.field for violation in refused.value.violations] == [field]
    assert "secret@" not in str(refused.value) + str(refused.value.__cause__)


async def test_a_key_that_is_not_set_is_asked_for_by_its_variable(tmp_path: Path) -> None:
    options = {"url": "https://here", "api_key_env": "NO_SUCH_API_KEY"}
    with pytest.raises(FailedPrecondition, match="NO_SUCH_API_KEY"):
        await drop_shared("qdrant", name="one", options=options)
