"""Searches that are reranked by token vectors: kept ones, or made on the fly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from embedders.base import Encoded
from embedders.hashing import HashingEmbedder
from ragstone.errors import BackendUnavailable, InvalidArgument
from ragstone.types import Document, Mode, Query, Recipe, Rerank, SearchResult
from retrieval.config import Settings
from retrieval.wiring import build
from tests.app.conftest import App

# Both have every word of the query; that they are together matters to nobody but late interaction's tokens.
NOISE = "It was said of ships and towers and of all that is lit on the coast, by night and in the fog. "
DOCUMENTS = [
    Document(id="answer", text="The lamp is lit at dusk."),
    Document(id="long", text=f"The lamp. {NOISE * 3} Lit at dusk."),
    *(Document(id=f"other-{i}", text=f"Tower {i}: {NOISE}") for i in range(20)),
]
QUERY = Query(text="lamp lit at dusk", k=30, explain=True)
RERANKED = {"kind": "late_interaction", "weight": 1.0}


@pytest.fixture(params=["kept", "on the fly"])
async def late(request: pytest.FixtureRequest, settings: Settings) -> AsyncIterator[App]:
    """A collection that is reranked by tokens, all of the score."""
    tokens = {"kind": "lmdb", "keep": 1.0} if request.param == "kept" else {"kind": "none"}
    ragstone = await build(settings)
    recipe = Recipe(index={"kind": "flat"}, tokens=tokens, reranker=RERANKED)
    await ragstone.create_collection("docs", recipe)
    app = App(ragstone)
    await app.upsert(*DOCUMENTS)
    yield app
    await ragstone.close()


def rerank_scores(result: SearchResult) -> dict[str, float]:
    return {hit.document_id: leg.score for hit in result.hits for leg in hit.legs if leg.leg == "rerank"}


async def test_a_passage_with_all_words_of_the_query_has_the_best_score(late: App) -> None:
    result = await late.search(QUERY)
    assert result.degraded == ()
    scores = rerank_scores(result)
    assert scores["answer"] == pytest.approx(1.0, abs=0.02)
    assert scores["answer"] > max(score for id_, score in scores.items() if id_.startswith("other"))
    assert result.hits[0].document_id in ("answer", "long")
    assert "rerank" in result.timings_ms
    assert result.plan["rerank"].startswith(f"{len(scores)} of {len(scores)} candidates")


@pytest.mark.parametrize("mode", Mode)
async def test_every_mode_with_a_text_is_reranked(late: App, mode: Mode) -> None:
    result = await late.search(Query(text=QUERY.text, mode=mode, explain=True))
    assert "answer" in rerank_scores(result)


async def test_one_pass_makes_the_query_s_vector_and_its_tokens(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ragstone = await build(settings)
    recipe = Recipe(index={"kind": "flat"}, tokens={"kind": "lmdb"}, reranker=RERANKED)
    await ragstone.create_collection("docs", recipe)
    app = App(ragstone)
    await app.upsert(*DOCUMENTS)
    passes: list[str] = []

    async def counting(self: HashingEmbedder, texts: Sequence[str], *, tenant: str = "") -> list[Encoded]:
        passes.extend(texts)
        return self._encode(texts)

    async def never(*args: object, **options: object) -> object:
        raise AssertionError("a second pass")

    monkeypatch.setattr(HashingEmbedder, "encode_queries", counting)
    monkeypatch.setattr(HashingEmbedder, "embed_queries", never)
    await app.search(QUERY)
    await app.search(QUERY)
    assert passes == [QUERY.text]
    await ragstone.close()


async def test_a_search_can_do_without(late: App) -> None:
    result = await late.search(Query(text=QUERY.text, rerank=Rerank(off=True), explain=True))
    assert rerank_scores(result) == {}
    assert "rerank" not in result.timings_ms


async def test_pages_are_parts_of_one_reranked_ranking(late: App) -> None:
    whole = [hit.chunk_id for hit in (await late.search(QUERY)).hits]
    paged: list[str] = []
    token = ""
    while True:
        result = await late.search(Query(text=QUERY.text, k=4, page_token=token))
        paged += [hit.chunk_id for hit in result.hits]
        token = result.next_page_token
        if not token:
            break
    assert paged == whole


async def test_a_model_that_is_away_leaves_the_lexical_leg_and_says_so(
    late: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*args: object, **options: object) -> object:
        raise BackendUnavailable("the model is away")

    for name in ("encode_queries", "embed_queries"):
        monkeypatch.setattr(HashingEmbedder, name, away)
    result = await late.search(QUERY)
    assert set(result.degraded) == {"dense", "rerank"}
    assert result.hits


async def test_a_query_in_a_language_that_the_model_does_not_read_is_left_as_it_was_found(
    settings: Settings,
) -> None:
    ragstone = await build(settings)
    recipe = Recipe(
        index={"kind": "flat"}, tokens={"kind": "lmdb"}, reranker={**RERANKED, "languages": ["en"]}
    )
    await ragstone.create_collection("docs", recipe)
    app = App(ragstone)
    await app.upsert(
        *DOCUMENTS, Document(id="de", text="Die Lampe wird in der Dämmerung angezündet.", language="de")
    )
    german = Query(text="Wann wird die Lampe angezündet?", explain=True)
    result = await app.search(german)
    assert rerank_scores(result) == {}
    assert result.plan["rerank"] == "not reranked: the query seems to be in none of en"
    assert result.degraded == ()
    assert rerank_scores(await app.search(QUERY))
    asked = await app.search(Query(text=german.text, explain=True, rerank=Rerank(depth=10)))
    assert rerank_scores(asked)
    await ragstone.close()


async def test_texts_can_be_scored_by_hand(late: App) -> None:
    texts = ["A lamp lit at dusk", "Nothing of the kind"]
    scored = await late.ragstone.rerank("docs", "lamp lit at dusk", texts, deadline_s=5.0)
    assert scored.complete
    assert scored.scores[0] > scored.scores[1]


async def test_vectors_of_clients_cannot_be_compared_token_by_token(app: App) -> None:
    recipe = Recipe(embedder={"kind": "precomputed", "space": "mine", "dim": 8}, reranker=RERANKED)
    with pytest.raises(InvalidArgument, match="gives no token vectors") as raised:
        await app.ragstone.create_collection("mine", recipe)
    assert raised.value.violations[0].field == "recipe.reranker.kind"
