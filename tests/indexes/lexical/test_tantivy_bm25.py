"""What is tantivy's own: its ranking, its durability, its damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes.directory import LocalDirectory
from indexes.lexical import okapi, tantivy_bm25
from indexes.lexical.conformance import ENGLISH, batch, hits
from indexes.lexical.tantivy_bm25 import TantivyIndex
from ragstone.errors import BackendUnavailable, CorruptIndex, FailedPrecondition, InvalidArgument

WORDS = ("heart", "blood", "violin", "string", "crust", "earth", "wave", "lung")


async def open_tantivy(path: Path) -> TantivyIndex:
    return await tantivy_bm25.open_index(directory=LocalDirectory(path), options={"language": "en"})


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), min_size=6, max_size=6), min_size=1, max_size=30),
    query=st.lists(st.sampled_from(WORDS), min_size=1, max_size=12),
)
async def test_scores_are_those_of_the_reference(
    texts: list[list[str]], query: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The document that holds the journal position counts as an empty one; so the reference gets one too.
    everything = batch({n: " ".join(words) for n, words in enumerate([*texts, []])})
    without_the_empty_one = batch({n: " ".join(words) for n, words in enumerate(texts)})
    directory = LocalDirectory(tmp_path_factory.mktemp("reference"))
    tantivy = await open_tantivy(tmp_path_factory.mktemp("tantivy"))
    reference = await okapi.open_index(directory=directory, options={"language": "en"})
    await tantivy.apply(without_the_empty_one, seq=1)
    await reference.apply(everything, seq=1)

    found = await tantivy.search(" ".join(query), len(texts))
    expected = await reference.search(" ".join(query), len(texts))
    await tantivy.close()

    assert sorted(hits(found)) == sorted(hits(expected))
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)


async def test_a_repeated_word_of_the_query_weighs_more(tmp_path: Path) -> None:
    index = await open_tantivy(tmp_path)
    await index.apply(batch({1: "violin lung", 2: "heart lung"}), seq=1)
    assert hits(await index.search("heart violin violin", 2)) == [1, 2]
    assert hits(await index.search("heart violin heart", 2)) == [2, 1]
    await index.close()


async def test_what_was_applied_survives_without_a_checkpoint(tmp_path: Path) -> None:
    index = await open_tantivy(tmp_path)
    await index.apply(batch(dict(enumerate(ENGLISH))), seq=3)
    await index.close()
    reopened = await open_tantivy(tmp_path)
    assert reopened.applied_seq == 3
    assert hits(await reopened.search("volcano", 1)) == [4]
    await reopened.close()


async def test_compaction_keeps_answers_and_bounds_segments(tmp_path: Path) -> None:
    index = await open_tantivy(tmp_path)
    for seq in range(1, 21):
        await index.apply(batch({seq: f"violin number{seq}"}), seq=seq)
    await index.compact()
    assert index.applied_seq == 20
    assert index.stats().segments < 10
    assert hits(await index.search("violin", 30)) == list(range(1, 21))
    await index.apply(batch({21: "violin number21"}), seq=21)
    assert hits(await index.search("number21", 5)) == [21]
    await index.close()


async def test_a_document_in_no_known_language_is_found_beside_others(tmp_path: Path) -> None:
    index = await tantivy_bm25.open_index(directory=LocalDirectory(tmp_path), options={})
    await index.apply(batch({1: ENGLISH[0], 2: "XJ-42-B", 3: ENGLISH[2]}), seq=1)
    assert index.stats().details["languages"] == {"": 1, "en": 2}
    assert hits(await index.search("what is XJ-42-B?", 1)) == [2]
    await index.close()


async def test_a_batch_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    index = await open_tantivy(tmp_path)
    await index.apply(batch(dict(enumerate(ENGLISH))), seq=1)
    (tmp_path / "tantivy").rename(tmp_path / "gone")
    with pytest.raises(BackendUnavailable):
        await index.apply(batch({9: "violin"}, deleted=[2]), seq=2)
    assert index.applied_seq == 1
    assert hits(await index.search("violin", 5)) == [2, 3]
    (tmp_path / "gone").rename(tmp_path / "tantivy")
    await index.apply(batch({9: "violin"}, deleted=[2]), seq=2)
    assert hits(await index.search("violin", 5)) == [9, 3]
    await index.close()


async def test_stats_tell_live_from_deleted(tmp_path: Path) -> None:
    index = await open_tantivy(tmp_path)
    await index.apply(batch(dict(enumerate(ENGLISH))), seq=1)
    await index.apply(batch({}, deleted=[0, 1]), seq=2)
    stats = index.stats()
    assert (stats.live, stats.deleted) == (4, 2)
    assert stats.bytes_on_disk > 0
    await index.close()


async def test_only_one_may_have_it_open(tmp_path: Path) -> None:
    index = await open_tantivy(tmp_path)
    with pytest.raises(FailedPrecondition):
        await open_tantivy(tmp_path)
    await index.close()


async def test_once_closed_it_refuses_work(tmp_path: Path) -> None:
    index = await open_tantivy(tmp_path)
    await index.close()
    with pytest.raises(FailedPrecondition):
        await index.search("violin", 1)
    with pytest.raises(FailedPrecondition):
        await index.apply(batch({}), seq=1)


@pytest.mark.parametrize("damage", ["truncate the manifest", "lose the manifest", "truncate a segment"])
async def test_damaged_files_are_reported_when_opened(damage: str, tmp_path: Path) -> None:
    index = await open_tantivy(tmp_path)
    await index.apply(batch(dict(enumerate(ENGLISH))), seq=1)
    await index.close()
    _damage(tmp_path, damage)
    with pytest.raises(CorruptIndex):
        await open_tantivy(tmp_path)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"language": "klingon"}, "language"), ({"language": 3}, "language"), ({"k1": 1.2}, "k1")],
)
async def test_wrong_options_name_their_field(options: dict[str, object], field: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await tantivy_bm25.open_index(directory=LocalDirectory(tmp_path), options=options)
    assert [each.field for each in caught.value.violations] == [f"recipe.lexical.{field}"]


def _damage(path: Path, damage: str) -> None:
    manifest = next(path.rglob("meta.json"))
    if damage == "truncate the manifest":
        manifest.write_bytes(manifest.read_bytes()[:20])
    elif damage == "lose the manifest":
        manifest.unlink()
    else:
        next(path.rglob("*.term")).write_bytes(b"")


# tantivy numbers operations and names files by the numbers: one of these batches comes to the lost one's.
@pytest.mark.parametrize("added", [{}, {4: "wave"}, {4: "wave", 5: "crust"}, {4: "a", 5: "b", 6: "c"}])
async def test_files_of_a_commit_that_a_crash_cut_off_do_not_stop_the_next_one(
    tmp_path: Path, added: dict[int, str]
) -> None:
    index = await open_tantivy(tmp_path)
    await index.apply(batch({1: "violin", 2: "heart", 3: "lung"}), seq=1)
    meta = tmp_path / "tantivy" / "meta.json"
    committed = meta.read_bytes()
    await index.apply(batch({}, deleted=[2]), seq=2)
    await index.close()
    meta.write_bytes(committed)

    index = await open_tantivy(tmp_path)
    await index.apply(batch(added, deleted=[2]), seq=2)
    assert hits(await index.search("violin heart lung", 3)) == [1, 3]
    await index.close()
