"""Moving a collection to another recipe while it is read and written."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import numpy as np
import pytest

from embedders.hashing import HashingEmbedder
from ragstone.errors import (
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    InvalidPageToken,
    RagstoneError,
    SpaceMismatch,
)
from ragstone.types import Document, Mode, Query, Recipe, Version, Wait
from retrieval.config import Settings
from retrieval.store.catalog import Catalog
from retrieval.store.followers import Followers
from retrieval.store.journal import Journal
from retrieval.store.values import utc_now
from retrieval.versions.applier import Applier
from retrieval.versions.rebuild import Yielding
from retrieval.versions.sweeper import Sweeper
from retrieval.wiring import build
from tests.app.conftest import HASHING, App

SENTENCES: Final = " ".join(f"The lamp of tower {n} is lit at dusk and put out at dawn." for n in range(12))
DOCUMENTS: Final = [Document(id=str(i), text=f"Light number {i}. {SENTENCES}") for i in range(40)]
SEA: Final = Query(text="Which light is lit at dusk?", k=200)

ANOTHER_SPACE: Final = Recipe(embedder={"kind": "hashing", "dim": 96})
MOVES: Final = {
    "another space": ANOTHER_SPACE,
    "another index": Recipe(index={"kind": "ivf_pq"}),
    "more shards": Recipe(index={"shards": 4}),
    "smaller chunks": Recipe(chunker={"max_tokens": 48, "overlap_tokens": 8}),
    "all at once": Recipe(
        embedder={"kind": "hashing", "dim": 96},
        chunker={"max_tokens": 48, "overlap_tokens": 8},
        index={"kind": "hnsw", "shards": 2},
    ),
}


async def settled(app: App, name: str, collection: str = "docs") -> Version:
    """What a version has become once it changes by itself no more."""
    async with asyncio.timeout(60):
        async for version in app.ragstone.watch_version(collection, name):
            last = version
    return last


async def rebuilt(app: App, recipe: Recipe) -> Version:
    version = await settled(app, (await app.ragstone.create_version("docs", recipe)).name)
    assert (version.state, version.reason) == ("ready", "")
    return version


async def ids(app: App, mode: Mode) -> set[str]:
    """The documents of all chunks that a search finds."""
    return set(await app.found(replace(SEA, mode=mode, k=1_000)))


@pytest.fixture
async def filled(app: App) -> App:
    await app.upsert(*DOCUMENTS)
    return app


@pytest.mark.parametrize("move", MOVES)
async def test_a_rebuilt_version_serves_every_document_in_both_legs(move: str, filled: App) -> None:
    version = await rebuilt(filled, MOVES[move])
    assert all(gate.passed for gate in version.gates)
    promoted = await filled.ragstone.promote_version("docs", version.name, force=False)
    assert promoted.state == "serving"
    result = await filled.search(SEA)
    assert (result.version, result.space) == (version.name, version.space)
    for mode in (Mode.DENSE, Mode.LEXICAL):
        assert await ids(filled, mode) == {document.id for document in DOCUMENTS}


@pytest.mark.parametrize("move", ["another space", "smaller chunks"])
async def test_what_is_written_during_a_rebuild_is_neither_lost_nor_revived(move: str, filled: App) -> None:
    version = await filled.ragstone.create_version("docs", MOVES[move])
    for i in range(20):
        await filled.upsert(Document(id=f"new {i}", text=f"A new light, number {i}, is lit at dusk."))
        await filled.upsert(Document(id=str(i), text=f"Light number {i} was rebuilt: it is lit at dusk."))
        await filled.delete(str(39 - i))
    await settled(filled, version.name)
    await filled.ragstone.promote_version("docs", version.name, force=False)
    expected = {*map(str, range(20)), *(f"new {i}" for i in range(20))}
    assert await ids(filled, Mode.DENSE) == await ids(filled, Mode.LEXICAL) == expected
    texts = {hit.text for hit in (await filled.search(replace(SEA, k=1_000))).hits}
    assert not any("The lamp of tower" in text for text in texts)


@pytest.mark.parametrize("move", ["another space", "smaller chunks"])
async def test_the_version_that_served_before_follows_and_takes_over_again(move: str, filled: App) -> None:
    before = (await filled.search(SEA)).version
    version = await rebuilt(filled, MOVES[move])
    await filled.ragstone.promote_version("docs", version.name, force=False)
    await filled.upsert(Document(id="late", text="A late light is lit at dusk."))
    await filled.delete("7")
    back = await filled.ragstone.rollback("docs")
    assert (back.name, back.state) == (before, "serving")
    await filled.upsert(Document(id="later", text="A later light is lit at dusk."))
    expected = {document.id for document in DOCUMENTS} - {"7"} | {"late", "later"}
    assert await ids(filled, Mode.DENSE) == await ids(filled, Mode.LEXICAL) == expected
    assert {v.name: v.state for v in await filled.ragstone.versions("docs")} == {
        before: "serving",
        version.name: "retiring",
    }


async def test_a_rebuild_embeds_only_what_its_space_lacks(filled: App) -> None:
    version = await filled.ragstone.create_version("docs", Recipe(index={"kind": "hnsw"}))
    snapshot = filled.ragstone._collections.get("docs")
    await settled(filled, version.name)
    follower = snapshot.followers[max(snapshot.followers)].snapshot
    assert follower.applier.progress.embedded == 0
    assert follower.applier.progress.reused == follower.parts.dense.stats().live


async def test_recall_is_measured_once_however_much_is_written_meanwhile(
    filled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = HashingEmbedder.embed_queries
    asked: list[str] = []

    async def writing(self: HashingEmbedder, texts: list[str], *, tenant: str = "") -> Any:
        asked.extend(texts)
        await filled.upsert(Document(id=f"during {len(asked)}", text="A light is lit at dusk."))
        return await real(self, texts)

    monkeypatch.setattr(HashingEmbedder, "embed_queries", writing)
    version = await rebuilt(filled, MOVES["another index"])
    await filled.ragstone.promote_version("docs", version.name, force=False)
    await filled.ragstone.rollback("docs")
    assert 0 < len(asked) <= 64 + 2 * 32  # for recall, and for both versions beside each other


async def test_a_page_token_stays_with_its_version_until_that_is_deleted(filled: App) -> None:
    first = await filled.search(replace(SEA, k=10))
    version = await rebuilt(filled, MOVES["smaller chunks"])
    await filled.ragstone.promote_version("docs", version.name, force=False)
    second = await filled.search(replace(SEA, k=10, page_token=first.next_page_token))
    assert second.version == first.version
    assert not {hit.chunk_id for hit in first.hits} & {hit.chunk_id for hit in second.hits}
    assert await filled.ragstone.delete_version("docs", first.version) > 0
    with pytest.raises(InvalidPageToken):
        await filled.search(replace(SEA, k=10, page_token=first.next_page_token))


async def test_two_promoters_race_and_one_gets_a_conflict(filled: App) -> None:
    names = [(await rebuilt(filled, MOVES[move])).name for move in ("another space", "more shards")]
    promotions = [filled.ragstone.promote_version("docs", name, force=False) for name in names]
    results = await asyncio.gather(*promotions, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "Version"]
    states = sorted(version.state for version in await filled.ragstone.versions("docs"))
    assert states == ["ready", "retiring", "serving"]


async def test_an_acknowledged_write_is_found_whichever_version_begins_to_serve(
    filled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await filled.search(SEA)).version
    names = [(await rebuilt(filled, ANOTHER_SPACE)).name, before] * 10
    real = HashingEmbedder.embed_passages

    async def late(self: HashingEmbedder, *args: Any, **kwargs: Any) -> Any:
        # One version is always behind the other.
        await asyncio.sleep(0.02 if self.space.dim == 96 else 0.0)
        return await real(self, *args, **kwargs)

    monkeypatch.setattr(HashingEmbedder, "embed_passages", late)
    missed: list[str] = []

    async def write(own: int) -> None:
        for number in itertools.count():
            word = f"zq{own}x{number}"
            await filled.upsert(Document(id=word, text=f"{word} is lit at dusk."))
            result = await filled.search(Query(text=word, mode=Mode.LEXICAL))
            if [hit.document_id for hit in result.hits] != [word]:
                missed.append(f"{word} in {result.version}")

    writers = [asyncio.create_task(write(own)) for own in range(4)]
    for name in names:
        await filled.ragstone.promote_version("docs", name, force=True)
        await asyncio.sleep(0.01)
    for writer in writers:
        writer.cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    assert missed == []


async def test_a_promotion_does_not_wait_for_a_rest(filled: App, monkeypatch: pytest.MonkeyPatch) -> None:
    version = await rebuilt(filled, MOVES["smaller chunks"])

    async def for_ever(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Yielding, "__call__", for_ever)
    await filled.upsert(Document(id="late", text="A late light is lit at dusk."))
    async with asyncio.timeout(60):
        promoted = await filled.ragstone.promote_version("docs", version.name, force=False)
    assert promoted.state == "serving"


async def test_a_second_rebuild_is_refused_by_name(filled: App, stuck: Callable[[], None]) -> None:
    stuck()
    version = await filled.ragstone.create_version("docs", ANOTHER_SPACE)
    with pytest.raises(Conflict, match=version.name):
        await filled.ragstone.create_version("docs", MOVES["more shards"])


async def test_a_rebuild_that_is_paused_goes_on_from_where_it_was(
    filled: App, stuck: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck()
    version = await filled.ragstone.create_version("docs", ANOTHER_SPACE)
    paused = await filled.ragstone.pause_version("docs", version.name)
    assert paused.state == "paused"
    await filled.delete("3")
    monkeypatch.undo()
    await filled.ragstone.resume_version("docs", version.name)
    assert (await settled(filled, version.name)).state == "ready"
    await filled.ragstone.promote_version("docs", version.name, force=False)
    assert await ids(filled, Mode.DENSE) == {document.id for document in DOCUMENTS} - {"3"}


async def test_a_restart_goes_on_with_a_rebuild(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    first = App(await build(settings))
    await first.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    await first.upsert(*DOCUMENTS)
    hang(monkeypatch)
    name = (await first.ragstone.create_version("docs", MOVES["all at once"])).name
    await first.upsert(Document(id="late", text="A late light is lit at dusk."), wait=Wait.COMMITTED)
    await first.ragstone.close()
    monkeypatch.undo()

    second = App(await build(settings))
    assert (await settled(second, name)).state == "ready"
    await second.ragstone.promote_version("docs", name, force=False)
    expected = {*(document.id for document in DOCUMENTS), "late"}
    assert await ids(second, Mode.DENSE) == await ids(second, Mode.LEXICAL) == expected
    await second.ragstone.close()

    third = App(await build(settings))
    assert await ids(third, Mode.DENSE) == expected
    assert (await third.search(SEA)).version == name
    await third.ragstone.rollback("docs")
    assert await ids(third, Mode.DENSE) == expected
    await third.ragstone.close()


async def test_an_embedder_that_gives_nan_fails_the_rebuild_and_touches_nothing_else(
    filled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: HashingEmbedder, texts: list[str], *, tenant: str = "") -> Any:
        return np.full((len(texts), self.space.dim), np.nan, dtype=np.float32)

    before = await filled.search(SEA)
    monkeypatch.setattr(HashingEmbedder, "embed_passages", broken)
    version = await filled.ragstone.create_version("docs", ANOTHER_SPACE)
    failed = await settled(filled, version.name)
    assert failed.state == "failed"
    assert "not finite" in failed.reason
    assert replace(await filled.search(SEA), timings_ms={}) == replace(before, timings_ms={})
    monkeypatch.undo()
    await filled.ragstone.resume_version("docs", version.name)
    assert (await settled(filled, version.name)).state == "ready"


async def test_a_model_that_became_another_behind_its_name_is_refused_with_both_spaces(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await build(settings)
    space = (await first.create_collection("docs", Recipe())).serving.space
    await first.close()
    renamed = property(lambda self: replace(self._space, digest="other weights"))
    monkeypatch.setattr(HashingEmbedder, "space", renamed)
    with pytest.raises(SpaceMismatch) as refused:
        await build(settings)
    assert refused.value.metadata["version_space"] == space
    assert refused.value.metadata["model_space"] != space


async def test_a_failed_gate_refuses_with_its_numbers_and_force_is_written_down(
    filled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = HashingEmbedder.embed_passages

    async def picky(self: HashingEmbedder, texts: list[str], *, tenant: str = "") -> Any:
        if self.space.dim == 96 and any("number 13." in text for text in texts):
            raise RagstoneError("cannot embed this")
        return await real(self, texts)

    monkeypatch.setattr(HashingEmbedder, "embed_passages", picky)
    version = await rebuilt(filled, ANOTHER_SPACE)
    follower = filled.ragstone._collections.get("docs").followers
    follower[max(follower)].snapshot.applier.progress.parked_chunks.clear()
    with pytest.raises(FailedPrecondition, match="dense_chunks"):
        await filled.ragstone.promote_version("docs", version.name, force=False)
    promoted = await filled.ragstone.promote_version("docs", version.name, force=True)
    assert promoted.state == "serving"
    assert [gate.name for gate in promoted.gates if not gate.passed] == ["dense_chunks"]


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        (Recipe(index={"kind": "tree"}), "recipe.index.kind"),
        (Recipe(chunker={"max_tokens": 1}), "recipe.chunker.max_tokens"),
        (Recipe(embedder={"kind": "precomputed", "space": "x", "dim": 3}), "recipe.embedder"),
    ],
)
async def test_a_wrong_recipe_is_refused_by_its_field_and_begins_nothing(
    recipe: Recipe, field: str, filled: App
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await filled.ragstone.create_version("docs", recipe)
    assert field in [violation.field for violation in refused.value.violations]
    assert len(await filled.ragstone.versions("docs")) == 1


async def test_a_recipe_that_changes_nothing_is_refused(filled: App) -> None:
    with pytest.raises(FailedPrecondition, match="nothing to rebuild"):
        await filled.ragstone.create_version("docs", Recipe(embedder=HASHING))


async def test_the_serving_version_can_neither_be_deleted_nor_paused(filled: App) -> None:
    for call in (filled.ragstone.delete_version, filled.ragstone.pause_version):
        with pytest.raises(FailedPrecondition, match="is serving"):
            await call("docs", "v1")


async def test_a_deleted_rebuild_leaves_no_files_and_no_chunks(filled: App, settings: Settings) -> None:
    version = await rebuilt(filled, MOVES["smaller chunks"])
    assert await filled.ragstone.delete_version("docs", version.name) > 0
    assert len(list((settings.data_dir / "versions").iterdir())) == 1
    database = filled.ragstone._database
    chunkings = await database.read(
        lambda c: c.exec_driver_sql("SELECT DISTINCT chunking FROM chunks").scalars().all()
    )
    assert len(chunkings) == 1
    assert [v.name for v in await filled.ragstone.versions("docs")] == ["v1"]


def hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the other space's model does not answer."""
    real = HashingEmbedder.embed_passages

    async def hanging(self: HashingEmbedder, texts: list[str], *, tenant: str = "") -> Any:
        if self.space.dim == 96:
            await asyncio.sleep(3_600)
        return await real(self, texts)

    monkeypatch.setattr(HashingEmbedder, "embed_passages", hanging)


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes rebuilds into another space hang."""
    return lambda: hang(monkeypatch)


async def test_a_plan_counts_what_is_known_and_begins_nothing(filled: App) -> None:
    plan = await filled.ragstone.plan_version("docs", ANOTHER_SPACE)
    [version] = await filled.ragstone.versions("docs")
    live = version.stats["dense"]["live"]
    assert (plan.documents, plan.chunks, plan.chunks_estimated) == (len(DOCUMENTS), live, False)
    distinct = len(DOCUMENTS) + 1  # all end alike
    assert (plan.texts_to_embed, plan.dim) == (distinct, 96)
    assert plan.tokens > plan.texts_to_embed
    assert plan.disk_bytes > live * 96 * 4
    same_space = await filled.ragstone.plan_version("docs", MOVES["more shards"])
    assert (same_space.texts_to_embed, same_space.tokens) == (0, 0)
    assert "nothing has to be embedded" in same_space.notes[-1]


async def test_a_plan_estimates_the_chunks_of_another_chunker(filled: App) -> None:
    plan = await filled.ragstone.plan_version("docs", MOVES["smaller chunks"])
    version = await rebuilt(filled, MOVES["smaller chunks"])
    assert plan.chunks_estimated
    assert plan.chunks == version.stats["dense"]["live"]


async def test_a_version_that_served_before_is_swept_when_its_window_is_over(
    filled: App, settings: Settings
) -> None:
    version = await rebuilt(filled, ANOTHER_SPACE)
    await filled.ragstone.promote_version("docs", version.name, force=False)
    later = timedelta(hours=25)
    freed = []
    for clock in (utc_now, lambda: utc_now() + later):
        sweeper = Sweeper(
            versions=filled.ragstone._versions,
            collections=filled.ragstone._collections,
            catalog=Catalog(filled.ragstone._database),
            homes=filled.ragstone._collections._homes,
            window_s=settings.rebuild.rollback_window_s,
            clock=clock,
        )
        freed.append(await sweeper.sweep())
    assert freed[0] == 0
    assert freed[1] > 0
    assert [v.name for v in await filled.ragstone.versions("docs")] == [version.name]
    with pytest.raises(FailedPrecondition, match="before"):
        await filled.ragstone.rollback("docs")


async def test_deleting_the_last_version_of_a_space_frees_its_vectors(filled: App) -> None:
    version = await rebuilt(filled, ANOTHER_SPACE)
    await filled.ragstone.delete_version("docs", version.name)
    spaces = await filled.ragstone._database.read(
        lambda c: c.exec_driver_sql("SELECT DISTINCT space FROM embeddings").scalars().all()
    )
    assert spaces == [(await filled.search(SEA)).space]


async def test_deleting_a_collection_ends_its_rebuild(
    filled: App, settings: Settings, stuck: Callable[[], None]
) -> None:
    stuck()
    await filled.ragstone.create_version("docs", ANOTHER_SPACE)
    await filled.ragstone.delete_collection("docs")
    assert not list((settings.data_dir / "versions").iterdir())
    await filled.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
    assert [version.name for version in await filled.ragstone.versions("docs")] == ["v1"]


async def test_a_write_that_was_read_from_the_journal_is_not_applied_again_with_the_next_one(
    filled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = Applier._catch_up_to, False

    async def beside_writes(self: Applier, head: int) -> None:
        nonlocal written
        if not written:
            written = True
            first = await filled.upsert(Document(id="first", text="A light."), wait=Wait.COMMITTED)
            await filled.upsert(Document(id="second", text="A light."), wait=Wait.COMMITTED)
            head = first.seq
        await real(self, head)

    monkeypatch.setattr(Applier, "_catch_up_to", beside_writes)
    version = await rebuilt(filled, ANOTHER_SPACE)
    assert all(gate.passed for gate in version.gates)
    assert version.stats["lexical"]["live"] == version.stats["dense"]["live"]


async def test_a_version_that_begins_while_the_journal_is_pruned_holds_what_it_has_to_hear_of(
    filled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowest, pruned = Followers.slowest, list[int]()

    async def begin_then_tell(self: Followers, collection_id: int, chunking: str) -> int | None:
        told = await slowest(self, collection_id, chunking)
        monkeypatch.setattr(Followers, "slowest", slowest)
        await filled.ragstone.create_version("docs", Recipe(index={"kind": "hnsw"}))
        collection = filled.ragstone._collections.get("docs")
        while len(collection.followers) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return told

    async def prune(self: Journal, collection_id: int, chunking: str, upto_seq: int) -> int:
        pruned.append(upto_seq)
        return 0

    async def stuck(self: Applier) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(Followers, "slowest", begin_then_tell)
    monkeypatch.setattr(Journal, "prune", prune)
    monkeypatch.setattr(Applier, "catch_up", stuck)
    await filled.delete("1")
    await filled.ragstone._collections.get("docs").snapshot.applier.checkpoint()
    assert pruned == []
