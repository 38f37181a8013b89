"""Vectors that workers make for a version that is paused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedders.hashing import HashingEmbedder
from ragstone.errors import InvalidArgument, NotFound, SpaceMismatch
from ragstone.types import Document, MissingTexts, Mode, Query, Recipe, Version
from retrieval.config import Settings
from retrieval.versions.leases import Leases
from retrieval.wiring import build
from tests.app.conftest import App

DIM = 96
ANOTHER_SPACE = Recipe(embedder={"kind": "hashing", "dim": DIM})
ANOTHER_CHUNKER = Recipe(
    embedder={"kind": "hashing", "dim": DIM}, chunker={"max_tokens": 48, "overlap_tokens": 8}
)
SENTENCES = " ".join(f"The lamp of tower {n} is lit at dusk and put out at dawn." for n in range(12))
DOCUMENTS = [Document(id=str(i), title="Lights", text=f"Light number {i}. {SENTENCES}") for i in range(30)]
EMBEDDER = HashingEmbedder(dim=DIM)


class Clock:
    """The leases' clock: stands still until it is put forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Job:
    """A paused version of ``docs``, and the calls that a worker makes for it."""

    def __init__(self, app: App, version: str) -> None:
        self.app = app
        self.version = version

    async def borrow(self, max_texts: int = 10, worker: str = "w", lease_s: float = 30.0) -> MissingTexts:
        return await self.app.ragstone.list_missing_embeddings(
            "docs", self.version, worker=worker, max_texts=max_texts, lease_s=lease_s
        )

    async def put(
        self,
        part: MissingTexts,
        vectors: Any = None,
        *,
        space: str = "",
        refused: dict[bytes, str] | None = None,
    ) -> int:
        kept = [text for text in part.texts if text.text_hash not in (refused or {})]
        return await self.app.ragstone.put_embeddings(
            "docs",
            self.version,
            space=space or part.space,
            lease=part.lease,
            hashes=[text.text_hash for text in kept],
            vectors=await EMBEDDER.embed_passages([t.text for t in kept]) if vectors is None else vectors,
            refused=refused or {},
        )

    async def work(self) -> list[str]:
        """Embed all there is; the texts that were lent, in their order."""
        lent: list[str] = []
        while (part := await self.borrow()).texts:
            lent += [text.text for text in part.texts]
            await self.put(part)
        assert part.done
        return lent

    async def resume(self) -> Version:
        await self.app.ragstone.resume_version("docs", self.version)
        async for version in self.app.ragstone.watch_version("docs", self.version):
            last = version
        return last

    def embedded_by_the_rebuild(self) -> int:
        followers = self.app.ragstone._collections.get("docs").followers
        return followers[max(followers)].snapshot.applier.progress.embedded


async def begin(app: App, recipe: Recipe) -> Job:
    """A rebuild that waits before it has embedded anything."""
    await app.upsert(*DOCUMENTS)
    version = await app.ragstone.create_version("docs", recipe, paused=True)
    assert version.state == "paused"
    return Job(app, version.name)


@pytest.fixture
def clock(app: App) -> Clock:
    """Of the leases that ``app`` gives."""
    found = Clock()
    app.ragstone._reembedding._leases = Leases(clock=found)
    return found


@pytest.fixture
async def job(app: App) -> Job:
    return await begin(app, ANOTHER_SPACE)


async def test_a_rebuild_finds_all_that_a_job_has_embedded_and_embeds_nothing_itself(job: Job) -> None:
    lent = await job.work()
    assert len(lent) == len(set(lent)) > len(DOCUMENTS)
    assert (await job.resume()).state == "ready"
    assert job.embedded_by_the_rebuild() == 0


async def test_what_a_job_has_filled_answers_as_an_undisturbed_rebuild_does(
    settings: Settings, tmp_path: Path
) -> None:
    answers = []
    for filled in (True, False):
        app = App(await build(settings.model_copy(update={"data_dir": tmp_path / str(filled)})))
        await app.ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
        job = await begin(app, ANOTHER_SPACE)
        if filled:
            await job.work()
        await job.resume()
        await app.ragstone.promote_version("docs", job.version, force=False)
        result = await app.search(Query(text="Which light is lit at dusk?", k=100, mode=Mode.DENSE))
        answers.append([(hit.chunk_id, hit.score) for hit in result.hits])
        await app.ragstone.close()
    assert answers[0] == answers[1] != []


async def test_documents_are_cut_on_the_way_where_the_version_cuts_them_otherwise(
    app: App,
) -> None:
    job = await begin(app, ANOTHER_CHUNKER)
    await job.work()
    await app.upsert(Document(id="late", text="A late light is lit at dusk."))
    assert await job.work() == ["A late light is lit at dusk."]
    assert (await job.resume()).state == "ready"
    assert job.embedded_by_the_rebuild() == 0


async def test_texts_are_lent_as_they_are_embedded_with_what_embeds_them(job: Job) -> None:
    part = await job.borrow(1)
    assert part.texts[0].text.startswith("Lights Light number 0.")
    assert (part.embedder, part.space) == ({"kind": "hashing", "dim": DIM}, EMBEDDER.space.id)


async def test_two_workers_never_hold_the_same_text(job: Job) -> None:
    held: list[bytes] = []
    while (part := await job.borrow(7, worker=f"w{len(held)}")).texts:
        held += [text.text_hash for text in part.texts]
    assert not part.done
    assert len(held) == len(set(held)) == part.missing


async def test_what_a_dead_worker_held_is_lent_again_when_its_lease_expires(job: Job, clock: Clock) -> None:
    lost = await job.borrow(5, lease_s=30.0)
    rest = await job.borrow(1_000)
    await job.put(rest)
    clock.now = 29.0
    assert (await job.borrow()).texts == ()
    clock.now = 31.0
    again = await job.borrow()
    assert again.texts == lost.texts
    await job.put(again)
    assert (await job.borrow()).done


async def test_a_worker_that_brings_something_keeps_the_rest_of_its_lease(job: Job, clock: Clock) -> None:
    part = await job.borrow(1_000, lease_s=30.0)
    clock.now = 29.0
    await job.app.ragstone.put_embeddings(
        "docs",
        job.version,
        space=part.space,
        lease=part.lease,
        hashes=[],
        vectors=np.empty((0, DIM), np.float32),
        refused={},
    )
    clock.now = 58.0
    assert (await job.borrow()).texts == ()


async def test_vectors_that_come_after_their_lease_has_expired_are_kept(job: Job, clock: Clock) -> None:
    late = await job.borrow(5)
    clock.now = 31.0
    await job.put(late)
    assert not {text.text_hash for text in late.texts} & {
        text.text_hash for text in (await job.borrow(1_000)).texts
    }


async def test_bringing_the_same_vectors_twice_changes_nothing(job: Job) -> None:
    part = await job.borrow(5)
    left = await job.put(part)
    assert await job.put(part, np.ones((5, DIM), np.float32)) == left
    stored, _ = await job.app.ragstone._reembedding._sources.embeddings.get_many(
        part.space, [text.text_hash for text in part.texts], DIM
    )
    assert np.array_equal(stored, await EMBEDDER.embed_passages([text.text for text in part.texts]))


async def test_vectors_of_another_space_are_refused_with_both_and_not_stored(job: Job) -> None:
    part = await job.borrow(5)
    with pytest.raises(SpaceMismatch) as refused:
        await job.put(part, space="other@1")
    assert refused.value.metadata == {"version_space": part.space, "vectors_space": "other@1"}
    assert await stored(job, part) == 0


@pytest.mark.parametrize(
    ("shape", "spoiled", "field"), [((5, DIM), 3, "vectors[3]"), ((5, DIM - 1), None, "vectors")]
)
async def test_vectors_that_are_not_finite_or_too_short_are_refused_by_the_row_and_not_stored(
    job: Job, shape: tuple[int, int], spoiled: int | None, field: str
) -> None:
    part = await job.borrow(5)
    vectors = np.ones(shape, np.float32)
    if spoiled is not None:
        vectors[spoiled, 1] = np.nan
    with pytest.raises(InvalidArgument) as refused:
        await job.put(part, vectors)
    assert [violation.field for violation in refused.value.violations] == [field]
    assert await stored(job, part) == 0


async def stored(job: Job, part: MissingTexts) -> int:
    hashes = [text.text_hash for text in part.texts]
    _, missing = await job.app.ragstone._reembedding._sources.embeddings.get_many(part.space, hashes, DIM)
    return int((~missing).sum())


async def test_a_text_that_is_refused_is_parked_listed_and_not_lent_again(job: Job) -> None:
    part = await job.borrow(5)
    poison = part.texts[2]
    await job.put(part, refused={poison.text_hash: "the model chokes on it"})
    assert poison.text not in await job.work()
    [parked] = (await job.app.ragstone.get_version("docs", job.version)).parked
    assert parked.chunk_id
    assert parked.reason == "the model chokes on it"


async def test_a_job_for_a_version_that_lacks_nothing_is_done_at_once(app: App) -> None:
    await app.upsert(*DOCUMENTS)
    assert (await Job(app, "v1").borrow()).done


async def test_a_version_that_is_not_there_lends_nothing(job: Job) -> None:
    with pytest.raises(NotFound):
        await Job(job.app, "v9").borrow()
