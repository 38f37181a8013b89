"""Several servers over one PostgreSQL catalog, each with indexes of its own: what one does, all know."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from embedders.hashing import HashingEmbedder
from ragstone.errors import BackendUnavailable, NotFound
from ragstone.types import Document, Mode, Query, Recipe
from retrieval.config import Settings
from retrieval.wiring import build
from tests.app.conftest import HASHING, App

DOCUMENTS = [Document(id=str(i), text=f"passage number {i} about the sea") for i in range(30)]
SEA = Query(text="passage about the sea", k=50)
MORE_DIMENSIONS = Recipe(embedder={**HASHING, "dim": 96})

Start = Callable[..., Awaitable[App]]


@pytest.fixture
async def start(postgres: Callable[[], str], tmp_path: Path) -> AsyncIterator[Start]:
    """``start("a")`` starts the server whose data lie in the folder ``a``."""
    url, started = postgres(), []

    async def start(name: str, **settings: object) -> App:
        given = {"data_dir": tmp_path / name, "database_url": url, "recipe": {"embedder": HASHING}}
        started.append(App(await build(Settings(**given, **settings))))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for app in started:
        await app.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def has(app: App, collection: str = "docs") -> bool:
    """Whether the server has the collection open."""
    try:
        await app.ragstone.get_collection(collection)
    except NotFound:
        return False
    return True


async def pair(start: Start) -> tuple[App, App]:
    """Two servers, and the collection ``docs`` with some documents on both."""
    a, b = await start("a"), await start("b")
    await a.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    await a.upsert(*DOCUMENTS)
    await until(lambda: has(b))
    return a, b


async def seen(app: App, mode: Mode = Mode.HYBRID) -> set[str]:
    """What a search finds that sees all that was acknowledged by anyone."""
    head = (await app.ragstone.get_collection("docs")).seq
    return set(await app.found(Query(text=SEA.text, k=50, mode=mode, min_seq=head)))


async def test_a_write_to_one_server_is_found_on_the_other_by_whoever_names_its_seq(start: Start) -> None:
    a, b = await pair(start)
    written = await a.upsert(Document(id="new", text="passage about the sea of news"))
    for mode in Mode:
        found = await b.found(Query(text=SEA.text, k=50, mode=mode, min_seq=written.seq))
        assert set(found) == {document.id for document in DOCUMENTS} | {"new"}


async def test_writes_to_both_at_once_are_all_found_on_both(start: Start) -> None:
    a, b = await pair(start)

    async def write(app: App, name: str) -> None:
        for i in range(20):
            await app.upsert(Document(id=f"{name}{i}", text=f"passage {name} {i} about the sea"))
            if i % 3 == 0:
                await app.delete(f"{name}{i}")

    await asyncio.gather(write(a, "a"), write(b, "b"))
    expected = {document.id for document in DOCUMENTS} | {f"{n}{i}" for n in "ab" for i in range(20) if i % 3}
    for app in (a, b):
        for mode in (Mode.DENSE, Mode.LEXICAL):
            head = (await app.ragstone.get_collection("docs")).seq
            found = await app.found(Query(text=SEA.text, k=100, depth=100, mode=mode, min_seq=head))
            assert set(found) == expected


async def test_a_collection_that_one_server_deletes_is_gone_on_the_other(
    start: Start, tmp_path: Path
) -> None:
    a, b = await pair(start)
    await a.ragstone.delete_collection("docs")

    async def gone() -> bool:
        return not await has(b) and not list((tmp_path / "b" / "versions").iterdir())

    await until(gone)


async def test_a_collection_that_is_deleted_and_made_anew_is_the_new_one_everywhere(start: Start) -> None:
    a, b = await pair(start)
    await a.ragstone.delete_collection("docs")
    await a.ragstone.create_collection("docs", Recipe(index={"kind": "hnsw"}))
    await a.upsert(Document(id="new", text="passage about the sea"))

    async def renewed() -> bool:
        return await has(b) and await seen(b) == {"new"}

    await until(renewed)


async def ready(app: App, version: str) -> None:
    async for _ in app.ragstone.watch_version("docs", version):
        pass


async def test_a_version_that_one_server_promotes_answers_on_the_other(start: Start) -> None:
    a, b = await pair(start)
    await a.ragstone.create_version("docs", MORE_DIMENSIONS)
    await ready(a, "v2")
    await a.ragstone.promote_version("docs", "v2", force=False)

    async def answers(version: str) -> bool:
        return (await b.search(SEA)).version == version

    await until(lambda: answers("v2"))
    assert len(await seen(b)) == 30
    await b.ragstone.rollback("docs")
    await until(lambda: answers("v1"))


async def test_of_two_servers_that_promote_at_once_one_meets_a_conflict(start: Start) -> None:
    a, b = await pair(start)
    await a.ragstone.create_version("docs", MORE_DIMENSIONS)
    await ready(a, "v2")
    await a.ragstone.create_version("docs", Recipe(index={"kind": "hnsw"}))
    await ready(a, "v3")
    outcomes = await asyncio.gather(
        a.ragstone.promote_version("docs", "v2", force=True),
        b.ragstone.promote_version("docs", "v3", force=True),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "Version"]


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that any server embeds."""
    real, texts_seen = HashingEmbedder.embed_passages, list[str]()

    async def counting(self: HashingEmbedder, texts: Sequence[str], *, tenant: str = "") -> np.ndarray:
        if self.space.dim == 96:
            texts_seen.extend(texts)
            await asyncio.sleep(0.05)
        return await real(self, texts)

    monkeypatch.setattr(HashingEmbedder, "embed_passages", counting)
    return texts_seen


async def test_one_server_builds_a_version_and_the_other_takes_its_vectors(
    start: Start, embedded: list[str]
) -> None:
    a, b = await pair(start)
    await a.ragstone.create_version("docs", MORE_DIMENSIONS)
    await ready(a, "v2")
    await b.ragstone.promote_version("docs", "v2", force=False)
    assert len(await seen(b)) == 30
    assert len(embedded) == len(set(embedded))


async def test_a_server_that_stops_in_the_middle_of_a_rebuild_leaves_it_to_the_other(
    start: Start, embedded: list[str]
) -> None:
    a, b = await pair(start)
    await a.ragstone.create_version("docs", MORE_DIMENSIONS)
    await a.close()
    await ready(b, "v2")
    assert (await b.ragstone.get_version("docs", "v2")).state == "ready"


async def test_a_server_that_was_away_misses_no_deletion(start: Start) -> None:
    a, b = await pair(start)
    await seen(b)
    await b.close()
    await a.delete(*(str(i) for i in range(20)))
    await a.ragstone.compact("docs")
    b = await start("b")
    for mode in (Mode.DENSE, Mode.LEXICAL):
        assert await seen(b, mode) == {str(i) for i in range(20, 30)}


async def test_a_server_that_was_away_for_too_long_begins_its_indexes_anew(start: Start) -> None:
    soon = {"follower_ttl_s": 0.1}
    a, b = await start("a", indexing=soon), await start("b", indexing=soon)
    await a.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    await a.upsert(*DOCUMENTS)
    await until(lambda: has(b))
    await seen(b)
    await b.close()
    await asyncio.sleep(0.2)
    await a.delete(*(str(i) for i in range(20)))
    await a.ragstone.compact("docs")
    b = await start("b", indexing=soon)
    for mode in (Mode.DENSE, Mode.LEXICAL):
        assert await seen(b, mode) == {str(i) for i in range(20, 30)}


async def test_a_collection_whose_model_is_away_opens_when_it_is_back(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await start("a")
    await first.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    await first.upsert(*DOCUMENTS)
    await first.close()
    with monkeypatch.context() as broken:

        async def away(kind: str, options: object) -> HashingEmbedder:
            raise BackendUnavailable("the model's server does not answer")

        broken.setattr("embedders.registry.open_embedder", away)
        second = await start("a")
        with pytest.raises(BackendUnavailable, match="does not answer"):
            await second.found(SEA)

    async def back() -> bool:
        try:
            return len(await second.found(SEA)) == 30
        except BackendUnavailable:
            return False

    await until(back)
