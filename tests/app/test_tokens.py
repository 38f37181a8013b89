"""Token vectors follow the journal like the other indexes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from embedders.base import Encoded
from embedders.hashing import HashingEmbedder
from ragstone.errors import InvalidArgument
from ragstone.types import Document, Query, Recipe, Version
from retrieval.config import Settings
from retrieval.versions.snapshots import Snapshot
from retrieval.wiring import build
from tests.app.conftest import App

DOCUMENTS = [
    Document(id=str(i), text=f"Light number {i} is lit at dusk and put out at dawn. " * 20) for i in range(20)
]
LATE = Recipe(index={"kind": "flat"}, tokens={"kind": "lmdb", "keep": 1.0})


@pytest.fixture
async def late(settings: Settings) -> AsyncIterator[App]:
    """A collection that keeps token vectors, with documents in it."""
    ragstone = await build(settings)
    await ragstone.create_collection("docs", LATE)
    app = App(ragstone)
    await app.upsert(*DOCUMENTS)
    yield app
    await ragstone.close()


def serving(app: App) -> Snapshot:
    return app.ragstone._collections.get("docs").snapshot


def counts(snapshot: Snapshot) -> tuple[int, int]:
    """Chunks with a vector, and chunks with token vectors."""
    assert snapshot.parts.tokens is not None
    return snapshot.parts.dense.stats().live, snapshot.parts.tokens.stats().live


async def ready(app: App, recipe: Recipe) -> Version:
    begun = await app.ragstone.create_version("docs", recipe)
    async with asyncio.timeout(60):
        seen = [version async for version in app.ragstone.watch_version("docs", begun.name)]
    assert seen[-1].state == "ready", seen[-1].reason
    return seen[-1]


async def test_every_chunk_has_token_vectors_and_a_deleted_one_has_none(late: App) -> None:
    before = counts(serving(late))
    assert before[0] == before[1] > len(DOCUMENTS)
    await late.delete("3")
    await late.upsert(Document(id="4", text="Light number 4 is out of order."))
    after = counts(serving(late))
    assert after[0] == after[1] < before[0]


async def test_one_pass_of_the_model_feeds_both_indexes(late: App, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[str] = []

    async def counting(self: HashingEmbedder, texts: Sequence[str], *, tenant: str = "") -> list[Encoded]:
        passes.extend(texts)
        return self._encode(texts)

    async def never(*args: object, **options: object) -> object:
        raise AssertionError("a second pass")

    monkeypatch.setattr(HashingEmbedder, "encode_passages", counting)
    monkeypatch.setattr(HashingEmbedder, "embed_passages", never)
    await late.upsert(Document(id="new", text="A new light is lit at dusk."))
    assert passes == ["A new light is lit at dusk."]


@pytest.mark.parametrize("lost", ["dense", "tokens", "lexical"])
async def test_an_index_that_is_lost_is_filled_again_beside_the_others(settings: Settings, lost: str) -> None:
    first = App(await build(settings))
    await first.ragstone.create_collection("docs", LATE)
    await first.upsert(*DOCUMENTS)
    await first.delete("3")
    before, hits = counts(serving(first)), await first.found(Query(text="light number 7", k=30))
    await first.ragstone.close()
    for path in (settings.data_dir / "versions").glob(f"*/{lost}/**/*"):
        if path.is_file():
            path.unlink()
    second = App(await build(settings))
    assert counts(serving(second)) == before
    assert await second.found(Query(text="light number 7", k=30)) == hits
    await second.ragstone.close()


async def test_a_rebuild_into_another_index_copies_the_tokens(
    late: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*args: object, **options: object) -> object:
        raise AssertionError("a text was encoded twice")

    with monkeypatch.context() as patched:
        patched.setattr(HashingEmbedder, "encode_passages", never)
        version = await ready(late, Recipe(index={"kind": "hnsw"}))
    assert {gate.name for gate in version.gates} >= {"dense_chunks", "lexical_chunks", "token_chunks"}
    await late.delete("5")
    await late.upsert(Document(id="new", text="A new light is lit at dusk."))
    await late.ragstone.promote_version("docs", version.name, force=False)
    assert serving(late).version.name == version.name
    dense, tokens = counts(serving(late))
    assert dense == tokens


async def test_a_rebuild_can_begin_to_keep_tokens_and_end_it(app: App) -> None:
    await app.upsert(*DOCUMENTS)
    version = await ready(app, Recipe(tokens={"kind": "lmdb"}))
    await app.ragstone.promote_version("docs", version.name, force=False)
    dense, tokens = counts(serving(app))
    assert dense == tokens > 0
    version = await ready(app, Recipe(tokens={"kind": "none"}))
    await app.ragstone.promote_version("docs", version.name, force=False)
    assert serving(app).parts.tokens is None


async def test_damage_in_the_tokens_is_healed_by_a_rebuild(late: App) -> None:
    index = serving(late).parts.tokens
    assert index is not None
    await index.checkpoint()
    before = serving(late).version.id
    index._damage = "the token vectors of a passage fail their checksum"  # type: ignore[attr-defined]
    async with asyncio.timeout(60):
        while serving(late).version.id == before:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    dense, tokens = counts(serving(late))
    assert dense == tokens > 0


async def test_vectors_of_clients_have_no_tokens(app: App) -> None:
    recipe = Recipe(embedder={"kind": "precomputed", "space": "mine", "dim": 8}, tokens={"kind": "lmdb"})
    with pytest.raises(InvalidArgument, match="gives no token vectors"):
        await app.ragstone.create_collection("mine", recipe)
    with pytest.raises(InvalidArgument) as raised:
        await app.ragstone.create_collection("other", Recipe(tokens={"kind": "redis"}))
    assert raised.value.violations[0].field == "recipe.tokens.kind"


async def test_scores_of_a_chunk_are_those_of_its_own_tokens(late: App) -> None:
    snapshot = serving(late)
    assert snapshot.parts.tokens is not None
    found = await snapshot.parts.dense.search(
        await snapshot.parts.embedder.embed_queries(["light number 7"]), 5
    )
    [query] = await HashingEmbedder(dim=64).encode_queries(["light number 7"])
    scores = await snapshot.parts.tokens.max_sim(query.tokens, query.ids, found.keys[0].tolist())
    assert np.isfinite(scores).all()
    assert scores.max() == pytest.approx(1.0, abs=0.01)
