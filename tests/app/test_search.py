"""Searching: the two legs, filters, pages, explanations and honest failures."""

import numpy as np
import pytest

from ragstone.errors import (
    BackendUnavailable,
    InvalidArgument,
    InvalidFilter,
    InvalidPageToken,
    SpaceMismatch,
)
from ragstone.types import Document, Fusion, Mode, Query, Recipe, SearchResult
from tests.app.conftest import App

WORDS = ["amber", "basalt", "cedar", "dune", "ember", "fjord", "garnet", "heath"]
DOCUMENTS = [
    Document(
        id=f"{i:03}",
        text=f"{WORDS[i % 8]} and {WORDS[(i * 3 + 1) % 8]} number {i}",
        metadata={"n": i, "even": i % 2 == 0, "tags": [WORDS[i % 8]]},
    )
    for i in range(60)
]
EVEN_FROM_20_WITHOUT_CEDAR = {f"{i:03}" for i in range(20, 60, 2) if WORDS[i % 8] != "cedar"}


@pytest.fixture
async def filled(app: App) -> App:
    await app.upsert(*DOCUMENTS)
    return app


async def pages(app: App, query: Query) -> list[SearchResult]:
    results = [await app.search(query)]
    while token := results[-1].next_page_token:
        results.append(await app.search(Query(text=query.text, mode=query.mode, k=query.k, page_token=token)))
    return results


@pytest.mark.parametrize("mode", list(Mode))
async def test_pages_give_each_hit_once_in_the_order_of_one_long_result(filled: App, mode: Mode) -> None:
    query = Query(text="cedar number", mode=mode, k=7)
    paged = [hit.chunk_id for result in await pages(filled, query) for hit in result.hits]
    whole = [hit.chunk_id for hit in (await filled.search(Query(text="cedar number", mode=mode, k=60))).hits]
    assert paged == whole


async def test_a_write_between_two_pages_repeats_nothing_and_loses_nothing(filled: App) -> None:
    first = await filled.search(Query(text="cedar number", k=10))
    await filled.upsert(*(Document(id=f"new{i}", text="cedar cedar cedar number") for i in range(30)))
    rest = []
    token = first.next_page_token
    while token:
        result = await filled.search(Query(text="cedar number", k=10, page_token=token))
        rest += [hit.document_id for hit in result.hits]
        token = result.next_page_token
    ids = [hit.document_id for hit in first.hits] + rest
    assert len(ids) == len(set(ids))
    assert {d.id for d in DOCUMENTS} <= set(ids)


async def test_a_page_token_serves_only_its_own_query(filled: App) -> None:
    token = (await filled.search(Query(text="cedar", k=3))).next_page_token
    with pytest.raises(InvalidPageToken):
        await filled.search(Query(text="dune", k=3, page_token=token))


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_filter_holds_in_every_mode(filled: App, mode: Mode) -> None:
    result = await filled.search(
        Query(text="cedar number", mode=mode, k=60, filter='n >= 20 AND even = true AND NOT tags:"cedar"')
    )
    assert {hit.document_id for hit in result.hits} == EVEN_FROM_20_WITHOUT_CEDAR


async def test_a_filter_that_does_not_parse_says_where(filled: App) -> None:
    with pytest.raises(InvalidFilter) as caught:
        await filled.search(Query(text="cedar", filter="n >= AND"))
    assert caught.value.column > 1


async def test_explain_shows_rank_score_and_contribution_of_each_leg(filled: App) -> None:
    result = await filled.search(Query(text="cedar number 2", explain=True, fusion=Fusion(kind="rrf")))
    best = result.hits[0]
    assert {leg.leg for leg in best.legs} == {"dense", "lexical"}
    assert best.score == pytest.approx(sum(leg.contribution for leg in best.legs))
    assert all(leg.contribution == pytest.approx(0.5 / (60 + leg.rank)) for leg in best.legs)


async def test_explain_says_how_the_dense_leg_looked(filled: App) -> None:
    result = await filled.search(Query(text="cedar", explain=True))
    assert "scans" in result.plan["dense"]
    lexical = await filled.search(Query(text="cedar", mode=Mode.LEXICAL, explain=True))
    assert lexical.plan == {}


async def test_without_explain_legs_and_plan_stay_out_of_the_answer(filled: App) -> None:
    result = await filled.search(Query(text="cedar"))
    assert result.hits[0].legs == ()
    assert result.plan == {}


async def test_the_answer_says_which_version_space_and_position_it_comes_from(filled: App) -> None:
    result = await filled.search(Query(text="cedar"))
    version = (await filled.ragstone.get_collection("docs")).serving
    assert (result.version, result.space) == (version.name, version.space)
    assert result.seq == version.applied_seq > 0
    assert {"dense", "lexical", "total"} <= set(result.timings_ms)


async def test_a_leg_that_fails_is_named_and_the_other_answers(
    filled: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*args: object, **options: object) -> object:
        raise BackendUnavailable("the model is away")

    snapshot = filled.ragstone._collections.get("docs").snapshot
    monkeypatch.setattr(type(snapshot.parts.embedder), "embed_queries", down)
    result = await filled.search(Query(text="cedar"))
    assert result.degraded == ("dense",)
    assert result.hits
    with pytest.raises(BackendUnavailable):
        await filled.search(Query(text="cedar", mode=Mode.DENSE))


async def test_a_batch_answers_each_query_as_if_alone(filled: App) -> None:
    queries = [Query(text=word, k=3) for word in WORDS]
    together = await filled.ragstone.batch_search("docs", queries, tenant="t", deadline_s=None)
    alone = [await filled.search(query) for query in queries]
    assert [r.hits for r in together] == [r.hits for r in alone]


async def test_one_wrong_query_of_a_batch_is_named(filled: App) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await filled.ragstone.batch_search(
            "docs", [Query(text="cedar"), Query(text="")], tenant="t", deadline_s=None
        )
    assert caught.value.violations[0].field == "queries[1].text"


# -- vectors of the client's own ----------------------------------------------------------------


@pytest.fixture
async def own(app: App) -> App:
    await app.ragstone.create_collection(
        "own",
        Recipe(embedder={"kind": "precomputed", "space": "mine", "dim": 8}, index={"kind": "hnsw"}),
    )
    rows = np.eye(8, dtype=np.float32)
    await app.upsert(
        *(Document(id=str(i), text=f"axis {i}", vector=rows[i]) for i in range(8)), collection="own"
    )
    return app


async def test_a_vector_finds_its_nearest_document(own: App) -> None:
    query = Query(vector=np.eye(8, dtype=np.float32)[3], mode=Mode.DENSE, k=1)
    result = await own.search(query, "own")
    assert [(hit.document_id, round(hit.score, 5)) for hit in result.hits] == [("3", 1.0)]


@pytest.mark.parametrize("space", [None, "mine"])
async def test_the_space_may_be_named_or_left_out(own: App, space: str | None) -> None:
    query = Query(vector=np.eye(8, dtype=np.float32)[3], space=space, mode=Mode.DENSE)
    assert (await own.search(query, "own")).hits


async def test_a_vector_of_another_space_is_refused_with_both_named(own: App) -> None:
    with pytest.raises(SpaceMismatch) as caught:
        await own.search(Query(vector=np.eye(8, dtype=np.float32)[3], space="theirs", mode=Mode.DENSE), "own")
    assert "theirs" in caught.value.message
    assert "mine" in caught.value.message


@pytest.mark.parametrize(
    "vector",
    [np.ones(7, np.float32), np.full(8, np.nan, np.float32), np.zeros(8, np.float32)],
    ids=["wrong dimension", "not a number", "no direction"],
)
async def test_a_vector_that_cannot_be_compared_is_refused(own: App, vector: np.ndarray) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await own.search(Query(vector=vector, mode=Mode.DENSE), "own")
    assert caught.value.violations[0].field == "query.vector"


async def test_text_and_vector_together_search_both_legs(own: App) -> None:
    query = Query(text="axis", vector=np.eye(8, dtype=np.float32)[3], explain=True, k=8)
    best = (await own.search(query, "own")).hits[0]
    assert best.document_id == "3"
    assert {leg.leg for leg in best.legs} == {"dense", "lexical"}


async def test_hybrid_search_without_text_says_what_is_missing(own: App) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await own.search(Query(vector=np.eye(8, dtype=np.float32)[3]), "own")
    assert caught.value.violations[0].field == "query.text"


async def test_min_seq_of_another_collection_does_not_hang(own: App) -> None:
    newest = (await own.upsert(Document(id="later", text="written last"))).seq
    query = Query(vector=np.eye(8, dtype=np.float32)[3], mode=Mode.DENSE, min_seq=newest)
    assert (await own.search(query, "own")).hits


async def test_a_boosted_title_counts_more_than_the_text(app: App) -> None:
    documents = [
        Document(id="titled", title="Lighthouse keepers", text="Who they were and what they did by night."),
        Document(id="told", text="A lighthouse, a second lighthouse, and a third lighthouse by the sea."),
    ]
    best = {}
    for boost in (1, 5):
        await app.ragstone.create_collection(f"boost-{boost}", Recipe(lexical={"title_boost": boost}))
        await app.upsert(*documents, collection=f"boost-{boost}")
        found = await app.found(Query(text="lighthouse", mode=Mode.LEXICAL), f"boost-{boost}")
        best[boost] = found[0]
    assert best == {1: "told", 5: "titled"}


async def test_a_recipe_may_ask_that_a_search_fails_with_either_leg(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    await app.ragstone.create_collection(
        "strict", Recipe(index={"kind": "flat"}, fusion={"failed_leg": "fail"})
    )
    await app.upsert(Document(id="a", text="the sea"), collection="strict")

    async def away(self: object, *args: object, **kwargs: object) -> None:
        raise BackendUnavailable("the store is away")

    monkeypatch.setattr("indexes.dense.segmented.SegmentedIndex.search", away)
    with pytest.raises(BackendUnavailable, match="the store is away"):
        await app.search(Query(text="the sea"), "strict")
