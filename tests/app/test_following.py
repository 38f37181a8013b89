"""Following the journal: restarts, models that fail, passages that a model refuses."""

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from embedders.hashing import HashingEmbedder
from indexes.base import TextBatch
from indexes.dense.segmented import SegmentedIndex
from indexes.lexical.tantivy_bm25 import TantivyIndex
from ragstone.errors import BackendUnavailable, Internal
from ragstone.types import Document, Mode, Query, Recipe, Wait
from retrieval.config import Settings
from retrieval.wiring import build
from tests.app.conftest import App

DOCUMENTS = [Document(id=str(i), text=f"passage number {i} about the sea") for i in range(30)]


async def test_a_restart_serves_what_was_written(settings: Settings) -> None:
    for kind in ("flat", "hnsw"):
        first = App(await build(settings))
        await first.ragstone.create_collection(kind, Recipe(index={"kind": kind}))
        await first.upsert(*DOCUMENTS, collection=kind)
        await first.delete("7", collection=kind)
        before = await first.found(Query(text="passage about the sea", k=50), kind)
        await first.ragstone.close()

        second = App(await build(settings))
        assert await second.found(Query(text="passage about the sea", k=50), kind) == before
        await second.ragstone.close()


async def test_what_was_committed_but_not_indexed_is_indexed_after_a_restart(settings: Settings) -> None:
    first = App(await build(settings))
    await first.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    await first.upsert(*DOCUMENTS, wait=Wait.COMMITTED)
    await first.ragstone.close()

    second = App(await build(settings))
    for mode in Mode:
        assert len(await second.found(Query(text="passage about the sea", mode=mode, k=50))) == 30
    await second.ragstone.close()


@pytest.mark.parametrize("damaged", ["dense/*.vectors", "dense/MANIFEST.json", "lexical/tantivy/meta.json"])
async def test_a_damaged_index_is_built_anew_from_the_journal(settings: Settings, damaged: str) -> None:
    first = App(await build(settings))
    await first.ragstone.create_collection("docs", Recipe(index={"kind": "hnsw"}))
    await first.upsert(*DOCUMENTS)
    await first.ragstone.close()
    [file, *_] = (settings.data_dir / "versions").glob(f"*/{damaged}")
    file.write_bytes(b"\x00 damaged \x00")

    second = App(await build(settings))
    for mode in Mode:
        assert len(await second.found(Query(text="passage about the sea", mode=mode, k=50))) == 30
    await second.ragstone.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def flip_unseen(file: Path) -> None:
    """Change one bit as a failing disk does: nobody has written, so the file's time stays."""
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


async def damaged_after_a_restart(settings: Settings, version: str) -> App:
    """An application that serves ``v1``, with ``v2`` beside it, one of whose files is damaged unseen."""
    first = App(await build(settings))
    await first.ragstone.create_collection("docs", Recipe(index={"kind": "hnsw"}))
    await first.upsert(*DOCUMENTS)
    await first.ragstone.create_version("docs", Recipe(index={"kind": "hnsw", "m": 8}))
    async for _ in first.ragstone.watch_version("docs", "v2"):
        pass
    await first.ragstone.compact("docs")
    await first.ragstone.close()
    [file] = (settings.data_dir / "versions" / version.removeprefix("v")).glob("dense/*.vectors")
    flip_unseen(file)
    return App(await build(settings))


async def test_a_serving_index_that_is_found_damaged_is_replaced_while_it_serves(settings: Settings) -> None:
    app = await damaged_after_a_restart(settings, "v1")

    async def replaced() -> bool:
        return [version.name for version in await app.ragstone.versions("docs")] == ["v2", "v3"]

    await until(replaced)
    for mode in Mode:
        assert len(await app.found(Query(text="passage about the sea", mode=mode, k=50))) == 30
    healed = await app.ragstone.get_version("docs", "v3")
    assert (healed.state, healed.stats["dense"]["damage"]) == ("serving", "")
    await app.ragstone.close()


async def test_an_index_that_does_not_serve_and_is_found_damaged_is_built_again(settings: Settings) -> None:
    app = await damaged_after_a_restart(settings, "v2")
    [file] = (settings.data_dir / "versions" / "2").glob("dense/*.vectors")

    async def gone() -> bool:
        return not file.exists()

    await until(gone)
    assert (await app.ragstone.promote_version("docs", "v2", force=False)).state == "serving"
    assert len(await app.found(Query(text="passage about the sea", mode=Mode.DENSE, k=50))) == 30
    await app.ragstone.close()


async def test_a_model_that_is_away_delays_indexing_and_loses_nothing(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = HashingEmbedder.embed_passages
    calls = 0

    async def flaky(self: HashingEmbedder, texts: Sequence[str], *, tenant: str = "") -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise BackendUnavailable("the model is away")
        return await real(self, texts)

    monkeypatch.setattr(HashingEmbedder, "embed_passages", flaky)
    await app.upsert(*DOCUMENTS)
    assert len(await app.found(Query(text="sea", mode=Mode.DENSE, k=50))) == 30
    assert calls == 3


async def test_a_passage_that_the_model_refuses_is_parked_counted_and_found_by_its_words(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = HashingEmbedder.embed_passages

    async def picky(self: HashingEmbedder, texts: Sequence[str], *, tenant: str = "") -> np.ndarray:
        if any("number 13" in text for text in texts):
            raise Internal("cannot embed this")
        return await real(self, texts)

    monkeypatch.setattr(HashingEmbedder, "embed_passages", picky)
    await app.upsert(*DOCUMENTS)
    stats = (await app.ragstone.get_collection("docs")).serving.stats
    assert stats["parked_chunks"] == 1
    assert len(await app.found(Query(text="sea", mode=Mode.DENSE, k=50))) == 29
    assert "13" in await app.found(Query(text="number 13", mode=Mode.LEXICAL, k=5))


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, int], None]:
    """``away(Index, 3)``: the next three batches cannot be written there."""

    def away(index: type, times: int) -> None:
        real, left = index.apply, [times]  # type: ignore[attr-defined]

        async def flaky(self: object, batch: object, *, seq: int) -> None:
            if left[0]:
                left[0] -= 1
                raise BackendUnavailable("the disk is full")
            await real(self, batch, seq=seq)

        monkeypatch.setattr(index, "apply", flaky)

    return away


LEGS = pytest.mark.parametrize(
    ("index", "mode"), [(TantivyIndex, Mode.LEXICAL), (SegmentedIndex, Mode.DENSE)], ids=["lexical", "dense"]
)


@LEGS
async def test_an_index_that_cannot_be_written_for_a_while_misses_nothing(
    app: App, away: Callable[[type, int], None], index: type, mode: Mode
) -> None:
    await app.upsert(*DOCUMENTS)
    away(index, 3)
    await app.delete("7", wait=Wait.COMMITTED)
    await app.upsert(Document(id="30", text="passage number 30 about the sea"))
    expected = {document.id for document in DOCUMENTS} - {"7"} | {"30"}
    assert set(await app.found(Query(text="passage about the sea", mode=mode, k=50))) == expected
    assert (await app.ragstone.get_collection("docs")).serving.stats["parked_steps"] == 0


async def test_the_lexical_leg_goes_on_while_the_dense_one_is_away(
    app: App, away: Callable[[type, int], None]
) -> None:
    away(SegmentedIndex, 1_000)
    await app.upsert(*DOCUMENTS, wait=Wait.COMMITTED)

    async def all_are_found() -> bool:
        return len(await app.found(Query(text="sea", mode=Mode.LEXICAL, k=50))) == 30

    await until(all_are_found)
    assert await app.found(Query(text="sea", mode=Mode.DENSE, k=50)) == []


@pytest.fixture
def poisonous(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Once called, the lexical index meets a bug at every batch that has the word "poison"."""

    def poisonous() -> None:
        real = TantivyIndex.apply

        async def buggy(self: TantivyIndex, batch: TextBatch, *, seq: int) -> None:
            if any("poison" in text for text in batch.texts):
                raise ZeroDivisionError("a bug")
            await real(self, batch, seq=seq)

        monkeypatch.setattr(TantivyIndex, "apply", buggy)

    return poisonous


async def test_a_write_that_an_index_cannot_take_is_parked_and_what_it_replaced_is_gone(
    app: App, poisonous: Callable[[], None]
) -> None:
    await app.upsert(*DOCUMENTS)
    poisonous()
    with pytest.raises(Internal, match="stored at seq 2, but could not be indexed"):
        await app.upsert(Document(id="7", text="poison"))
    found = await app.found(Query(text="passage about the sea", mode=Mode.LEXICAL, k=50))
    assert set(found) == {document.id for document in DOCUMENTS} - {"7"}
    assert (await app.ragstone.get_collection("docs")).serving.stats["parked_steps"] == 1


async def test_a_write_that_cannot_be_indexed_holds_up_no_other_after_a_restart(
    settings: Settings, poisonous: Callable[[], None]
) -> None:
    first = App(await build(settings))
    await first.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    for document in (*DOCUMENTS, Document(id="odd", text="poison"), Document(id="last", text="the sea")):
        await first.upsert(document, wait=Wait.COMMITTED)
    await first.ragstone.close()
    shutil.rmtree(settings.data_dir / "versions" / "1" / "lexical")
    poisonous()

    second = App(await build(settings))
    found = await second.found(Query(text="sea", mode=Mode.LEXICAL, k=50))
    assert set(found) == {document.id for document in DOCUMENTS} | {"last"}
    assert (await second.ragstone.get_collection("docs")).serving.stats["parked_steps"] == 1
    await second.ragstone.close()


async def test_a_server_whose_index_cannot_be_written_starts_and_serves_what_it_has(
    settings: Settings, away: Callable[[type, int], None]
) -> None:
    first = App(await build(settings))
    await first.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    await first.upsert(*DOCUMENTS)
    away(TantivyIndex, 1_000)
    await first.upsert(Document(id="30", text="passage number 30 about the sea"), wait=Wait.COMMITTED)
    await first.ragstone.close()

    second = App(await build(settings))
    assert len(await second.found(Query(text="sea", mode=Mode.LEXICAL, k=50))) == 30
    await second.ragstone.close()


async def test_identical_texts_are_embedded_once(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    real = HashingEmbedder.embed_passages
    embedded: list[str] = []

    async def counting(self: HashingEmbedder, texts: Sequence[str], *, tenant: str = "") -> np.ndarray:
        embedded.extend(texts)
        return await real(self, texts)

    monkeypatch.setattr(HashingEmbedder, "embed_passages", counting)
    await app.upsert(*(Document(id=str(i), text="the very same words") for i in range(5)))
    await app.upsert(Document(id="later", text="the very same words"))
    assert embedded == ["the very same words"]
    assert len(await app.found(Query(text="same words", mode=Mode.DENSE))) == 6


async def test_a_caller_that_leaves_does_not_stop_others_from_being_indexed(app: App) -> None:
    tasks = [asyncio.create_task(app.upsert(document)) for document in DOCUMENTS]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    acknowledged = {d.id for d, r in zip(DOCUMENTS, results, strict=True) if not isinstance(r, BaseException)}
    assert acknowledged <= set(await app.found(Query(text="sea", k=50)))
