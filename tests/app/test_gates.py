"""What a version has to show before it may serve, and how versions are compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest

from ragstone.errors import FailedPrecondition, InvalidArgument, NotFound
from ragstone.types import Document, Gate, GoldenQuery, Mode, Query, QuerySource, Recipe, Version
from retrieval.config import Settings
from retrieval.wiring import build
from tests.app.conftest import App

NAMES: Final = (
    *("albatross", "barnacle", "cormorant", "dolphin", "eider", "fulmar", "gannet", "herring"),
    *("isopod", "jellyfish", "kittiwake", "limpet", "mussel", "narwhal", "octopus", "petrel"),
)
DOCUMENTS: Final = [
    Document(id=name, text=f"The keeper of the {name} tower lights its lamp at dusk.") for name in NAMES
]
GOLDEN: Final = [
    GoldenQuery(id=name, text=f"Who lights the lamp of the {name}?", relevant={name: 1}) for name in NAMES
]
WORSE: Final = Recipe(embedder={"kind": "hashing", "dim": 8}, fusion={"lexical_weight": 0.0})
"""Many texts are the same in eight dimensions, and words do not count."""
EQUAL: Final = Recipe(index={"kind": "hnsw"})


@pytest.fixture
async def filled(app: App) -> App:
    await app.upsert(*DOCUMENTS)
    return app


async def rebuilt(app: App, recipe: Recipe) -> Version:
    version = await app.ragstone.create_version("docs", recipe)
    async for seen in app.ragstone.watch_version("docs", version.name):
        version = seen
    assert (version.state, version.reason) == ("ready", "")
    return version


def gate(gates: Sequence[Gate], name: str) -> Gate:
    [found] = [one for one in gates if one.name == name]
    return found


# -- golden queries ---------------------------------------------------------------------------


async def test_a_version_that_answers_golden_queries_worse_is_refused_with_the_numbers(filled: App) -> None:
    await filled.ragstone.set_golden_queries("docs", GOLDEN)
    version = await rebuilt(filled, WORSE)
    quality = gate(version.gates, "ndcg@10")
    assert not quality.passed
    assert quality.value < quality.limit == -0.02
    with pytest.raises(FailedPrecondition, match=r"ndcg@10 is -0.*limit -0\.02"):
        await filled.ragstone.promote_version("docs", version.name, force=False)
    assert (await filled.search(Query(text="lamp"))).version == "v1"


async def test_a_version_that_answers_them_as_well_passes(filled: App) -> None:
    await filled.ragstone.set_golden_queries("docs", GOLDEN)
    version = await rebuilt(filled, EQUAL)
    quality = gate(version.gates, "ndcg@10")
    assert (quality.passed, quality.value) == (True, 0.0)
    assert "16 golden queries" in quality.detail


async def test_a_loss_within_what_the_recipe_allows_passes(filled: App) -> None:
    await filled.ragstone.set_golden_queries("docs", GOLDEN)
    allowed = Recipe(embedder=WORSE.embedder, fusion=WORSE.fusion, gates={"ndcg_loss": 1.0})
    assert gate((await rebuilt(filled, allowed)).gates, "ndcg@10").passed


async def test_without_golden_queries_there_is_no_gate_on_them(filled: App) -> None:
    version = await rebuilt(filled, EQUAL)
    assert "ndcg@10" not in [one.name for one in version.gates]


async def test_golden_queries_are_replaced_whole_and_survive_a_restart(settings: Settings) -> None:
    first = await build(settings)
    await first.create_collection("docs", Recipe())
    await first.set_golden_queries("docs", GOLDEN)
    await first.set_golden_queries("docs", GOLDEN[:3])
    await first.close()
    second = await build(settings)
    assert await second.get_golden_queries("docs") == GOLDEN[:3]
    await second.close()


async def test_golden_queries_without_ids_are_called_by_their_places(app: App) -> None:
    await app.ragstone.set_golden_queries("docs", [GoldenQuery(text=t, relevant={"x": 1}) for t in "ab"])
    assert [query.id for query in await app.ragstone.get_golden_queries("docs")] == ["1", "2"]


async def test_two_golden_queries_of_one_id_are_refused_and_nothing_changes(app: App) -> None:
    await app.ragstone.set_golden_queries("docs", GOLDEN[:1])
    with pytest.raises(InvalidArgument) as refused:
        await app.ragstone.set_golden_queries("docs", [GOLDEN[1], GOLDEN[1]])
    assert [violation.field for violation in refused.value.violations] == ["queries[1].id"]
    assert await app.ragstone.get_golden_queries("docs") == GOLDEN[:1]


async def test_golden_queries_go_with_their_collection(app: App) -> None:
    await app.ragstone.set_golden_queries("docs", GOLDEN)
    await app.ragstone.delete_collection("docs")
    with pytest.raises(NotFound):
        await app.ragstone.get_golden_queries("docs")
    await app.ragstone.create_collection("docs", Recipe())
    assert await app.ragstone.get_golden_queries("docs") == []


# -- overlap and latency ----------------------------------------------------------------------


async def test_overlap_is_of_what_clients_asked(filled: App) -> None:
    for name in NAMES[:5]:
        await filled.search(Query(text=f"the lamp of the {name}"))
    overlap = gate((await rebuilt(filled, EQUAL)).gates, "overlap@10")
    assert (overlap.value, overlap.detail) == (1.0, "5 queries of clients")


async def test_overlap_is_of_texts_of_chunks_before_anybody_has_asked(filled: App) -> None:
    overlap = gate((await rebuilt(filled, EQUAL)).gates, "overlap@10")
    assert "texts of chunks" in overlap.detail


async def test_a_limit_on_overlap_refuses_another_ranking(filled: App) -> None:
    limited = Recipe(embedder=WORSE.embedder, fusion=WORSE.fusion, gates={"overlap": 0.999})
    version = await rebuilt(filled, limited)
    with pytest.raises(FailedPrecondition, match="overlap@10"):
        await filled.ragstone.promote_version("docs", version.name, force=False)


async def test_latency_is_measured_without_a_limit_and_held_to_one(filled: App) -> None:
    version = await rebuilt(filled, EQUAL)
    assert gate(version.gates, "p95_ratio").passed
    with pytest.raises(FailedPrecondition, match="p95_ratio"):
        await filled.ragstone.promote_version("docs", version.name, force=False, limits={"p95_ratio": 1e-6})


# -- limits of a promotion --------------------------------------------------------------------


async def test_limits_of_a_promotion_measure_every_gate_anew(filled: App) -> None:
    version = await rebuilt(filled, EQUAL)
    await filled.search(Query(text="the lamp of the narwhal"))
    promoted = await filled.ragstone.promote_version(
        "docs", version.name, force=False, limits={"overlap": 0.9}
    )
    overlap = gate(promoted.gates, "overlap@10")
    assert (overlap.limit, overlap.detail) == (0.9, "1 queries of clients")


async def test_an_unknown_limit_is_refused_by_its_name(filled: App) -> None:
    version = await rebuilt(filled, EQUAL)
    with pytest.raises(InvalidArgument) as refused:
        await filled.ragstone.promote_version("docs", version.name, force=False, limits={"overlaps": 0.9})
    assert [violation.field for violation in refused.value.violations] == ["gates.overlaps"]


async def test_gates_alone_are_nothing_to_rebuild(filled: App) -> None:
    with pytest.raises(FailedPrecondition, match="promotion"):
        await filled.ragstone.create_version("docs", Recipe(gates={"overlap": 0.5}))


async def test_a_forced_promotion_is_written_down_with_the_gates_that_failed(filled: App) -> None:
    await filled.ragstone.set_golden_queries("docs", GOLDEN)
    version = await rebuilt(filled, WORSE)
    promoted = await filled.ragstone.promote_version("docs", version.name, force=True)
    past = promoted.history[-1]
    assert (past.event, past.detail["forced"], past.detail["instead_of"]) == ("serving", True, "v1")
    assert "ndcg@10" in [one["name"] for one in past.detail["gates"] if not one["passed"]]


# -- comparisons ------------------------------------------------------------------------------


async def test_a_comparison_on_judged_queries_names_the_better_version(filled: App) -> None:
    version = await rebuilt(filled, WORSE)
    found = await filled.ragstone.compare_versions("docs", version.name, "v1", queries=GOLDEN, source=None)
    assert (found.source, found.queries, found.judged) == (QuerySource.GIVEN, 16, 16)
    assert found.better == "v1"
    assert found.a.ndcg is not None
    assert found.b.ndcg is not None
    assert found.a.ndcg < found.b.ndcg


async def test_a_version_compared_with_itself_is_all_alike(filled: App) -> None:
    found = await filled.ragstone.compare_versions("docs", "v1", "v1", queries=GOLDEN, source=None)
    assert (found.overlap, found.better) == (1.0, "")
    assert found.rank_biased_overlap == pytest.approx(1.0)


async def test_a_vector_is_asked_of_versions_in_its_space_alone(filled: App) -> None:
    embedded = await filled.ragstone.embed("docs", ["lamp"], kind="query", tenant="t")
    await filled.search(Query(vector=embedded.vectors[0], mode=Mode.DENSE))
    await filled.search(Query(text="lamp"))
    version = await rebuilt(filled, WORSE)
    found = await filled.ragstone.compare_versions(
        "docs", "v1", version.name, queries=[], source=QuerySource.RECORDED
    )
    assert (found.queries, found.skipped) == (1, 1)


@pytest.mark.parametrize("source", [QuerySource.RECORDED, QuerySource.GOLDEN])
async def test_a_source_without_queries_is_refused(filled: App, source: QuerySource) -> None:
    with pytest.raises(FailedPrecondition):
        await filled.ragstone.compare_versions("docs", "v1", "v1", queries=[], source=source)


async def test_a_version_that_is_not_open_cannot_be_compared(filled: App) -> None:
    paused = await filled.ragstone.create_version("docs", EQUAL, paused=True)
    with pytest.raises(FailedPrecondition, match=f"{paused.name} is not open: it is paused"):
        await filled.ragstone.compare_versions("docs", "v1", paused.name, queries=GOLDEN, source=None)
