"""Searches of a version whose recipe names a reranker: a server that knows which words a text has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ragstone.errors import FailedPrecondition, InvalidArgument, NotFound
from ragstone.types import Document, Mode, Query, Recipe, Rerank, SearchResult
from retrieval import telemetry
from retrieval.telemetry import Metrics
from tests.app.conftest import App
from tests.rerankers.servers import Fault, RerankServer

# The lexical leg likes those best that say "lamp" most often; the reranker those that have all words.
DOCUMENTS = [
    *(Document(id=f"{i:02}", text=f"{'lamp ' * (30 - i)} of tower number {i}") for i in range(30)),
    Document(id="answer", text="the lamp is lit at dusk in this tower by somebody who has time for that"),
]
AXIS = np.eye(8, dtype=np.float32)[0]
QUERY = Query(text="lamp lit at dusk", mode=Mode.LEXICAL, k=31)


@pytest.fixture
def server() -> Iterator[RerankServer]:
    made = RerankServer("tei")
    yield made
    made.close()


def recipe(server: RerankServer, **options: object) -> Recipe:
    reranker = {"kind": "rerank_http", "url": server.url, "style": "tei", "depth": 40, "weight": 1.0}
    return Recipe(index={"kind": "flat"}, reranker={**reranker, **options})


@pytest.fixture
async def reranked(app: App, server: RerankServer) -> App:
    await app.ragstone.delete_collection("docs")
    await app.ragstone.create_collection("docs", recipe(server))
    await app.upsert(*DOCUMENTS)
    return app


def ids(result: SearchResult) -> list[str]:
    return [hit.document_id for hit in result.hits]


async def pages(app: App, query: Query) -> list[str]:
    found: list[str] = []
    while True:
        result = await app.search(query)
        found += ids(result)
        if not result.next_page_token:
            return found
        query = replace(query, page_token=result.next_page_token)


async def test_the_reranker_decides_what_comes_first(reranked: App) -> None:
    result = await reranked.search(QUERY)
    assert ids(result)[0] == "answer"
    assert result.degraded == ()
    assert result.timings_ms[telemetry.STAGE_RERANK] > 0
    without = await reranked.search(replace(QUERY, rerank=Rerank(off=True)))
    assert telemetry.STAGE_RERANK not in without.timings_ms


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
async def test_a_score_is_the_sum_of_what_it_is_made_of(reranked: App, mode: Mode, weight: float) -> None:
    result = await reranked.search(replace(QUERY, mode=mode, explain=True, rerank=Rerank(weight=weight)))
    for hit in result.hits:
        assert hit.score == pytest.approx(sum(leg.contribution for leg in hit.legs))
        assert hit.legs[-1].leg == "rerank"
    assert all(a.score >= b.score - 1e-9 for a, b in pairwise(result.hits))
    assert result.plan["rerank"] == f"{len(result.hits)} of {len(result.hits)} candidates, weight {weight:g}"


async def test_the_reranker_reads_titles_too(reranked: App, server: RerankServer) -> None:
    await reranked.upsert(Document(id="titled", title="Lamps at dusk", text="They are lit."))
    await reranked.search(QUERY)
    assert any("Lamps at dusk They are lit." in texts for texts in server.asked)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("depth", [1, 10, 40])
async def test_pages_are_parts_of_one_reranked_ranking(reranked: App, mode: Mode, depth: int) -> None:
    query = replace(QUERY, mode=mode, rerank=Rerank(depth=depth))
    assert await pages(reranked, replace(query, k=4)) == ids(await reranked.search(query))


async def test_a_write_between_two_pages_repeats_nothing_and_loses_nothing(reranked: App) -> None:
    first = await reranked.search(replace(QUERY, k=5, rerank=Rerank(depth=10)))
    await reranked.upsert(*(Document(id=f"new {i}", text="lamp lit at dusk") for i in range(10)))
    rest = replace(QUERY, k=5, rerank=Rerank(depth=10), page_token=first.next_page_token)
    found = ids(first) + await pages(reranked, rest)
    assert len(found) == len(set(found))
    assert {document.id for document in DOCUMENTS} <= set(found)


async def test_a_page_belongs_to_the_reranking_that_began_it(reranked: App) -> None:
    token = (await reranked.search(replace(QUERY, k=5))).next_page_token
    with pytest.raises(InvalidArgument):
        await reranked.search(replace(QUERY, k=5, page_token=token, rerank=Rerank(depth=3)))


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(body=b"[]"), Fault(hang=True)])
async def test_a_reranker_that_fails_leaves_the_fused_ranking_and_is_named(
    reranked: App, server: RerankServer, metrics: Metrics, fault: Fault
) -> None:
    wanted = await reranked.search(replace(QUERY, rerank=Rerank(off=True)))
    server.always = fault
    result = await reranked.ragstone.search("docs", QUERY, tenant="t", deadline_s=1.0)
    assert result.degraded == ("rerank",)
    assert [(hit.document_id, hit.score) for hit in result.hits] == [
        (hit.document_id, hit.score) for hit in wanted.hits
    ]
    assert metrics.registry.get_sample_value(telemetry.SEARCHES_DEGRADED, {"leg": "rerank"}) == 1
    server.always = None
    assert (await reranked.search(QUERY)).degraded == ()


async def test_a_vector_alone_is_not_reranked_and_that_is_no_degradation(
    app: App, server: RerankServer
) -> None:
    own = {"kind": "precomputed", "space": "mine", "dim": 8}
    await app.ragstone.create_collection("own", replace(recipe(server), embedder=own))
    await app.upsert(Document(id="1", text="lamp", vector=AXIS), collection="own")
    query = Query(vector=AXIS, mode=Mode.DENSE, explain=True)
    result = await app.search(query, "own")
    assert (result.degraded, result.plan["rerank"]) == ((), "not reranked: the query has no text")
    with pytest.raises(InvalidArgument) as caught:
        await app.search(replace(query, rerank=Rerank()), "own")
    assert caught.value.violations[0].field == "query.rerank"
    both = await app.search(replace(query, text="lamp"), "own")
    assert both.hits[0].legs[-1].leg == "rerank"


async def test_a_batch_reranks_each_of_its_queries(reranked: App) -> None:
    queries = [replace(QUERY, text=text) for text in ("lamp lit at dusk", "tower number 7")]
    together = await reranked.ragstone.batch_search("docs", queries, tenant="t", deadline_s=None)
    assert [ids(result)[0] for result in together] == ["answer", "07"]


async def test_texts_can_be_reranked_by_hand(reranked: App) -> None:
    result = await reranked.ragstone.rerank("docs", "lamp lit", ["a lamp", "lamp lit"], deadline_s=10.0)
    assert (result.scores, result.complete, result.version) == ((0.5, 1.0), True, "v1")


async def test_where_no_reranker_is_asking_for_one_is_an_error(app: App) -> None:
    with pytest.raises(FailedPrecondition, match="none"):
        await app.search(Query(text="lamp", rerank=Rerank()))
    with pytest.raises(FailedPrecondition, match="names no reranker"):
        await app.ragstone.rerank("docs", "lamp", ["text"], deadline_s=None)


async def test_a_reranker_that_cannot_be_opened_leaves_no_collection_behind(
    app: App, server: RerankServer
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await app.ragstone.create_collection("new", recipe(server, style="dada"))
    assert caught.value.violations[0].field == "recipe.reranker.style"
    with pytest.raises(NotFound):
        await app.ragstone.get_collection("new")


async def test_another_reranker_is_another_version(reranked: App) -> None:
    changed = Recipe(reranker={"weight": 0.0})
    fused = await reranked.search(replace(QUERY, rerank=Rerank(off=True)))
    assert ids(await reranked.search(QUERY)) != ids(fused)
    name = (await reranked.ragstone.create_version("docs", changed)).name
    states = [version.state async for version in reranked.ragstone.watch_version("docs", name)]
    assert states[-1] == "ready"
    await reranked.ragstone.promote_version("docs", name, force=False)
    assert ids(await reranked.search(QUERY)) == ids(fused)
