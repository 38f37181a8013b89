"""Every call of both clients, through a real server, to the application and back."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest

from ragstone import (
    Citation,
    Contexts,
    Document,
    Done,
    Fusion,
    Generation,
    Health,
    MetadataValue,
    Mode,
    Query,
    Recipe,
    Rerank,
    Role,
    TextDelta,
    Truncation,
    Turn,
    Usage,
)
from retrieval.api.interceptors import ANYONE

METADATA: dict[str, MetadataValue] = {
    "lang": "en",
    "year": 2024,
    "score": 0.5,
    "draft": False,
    "day": date(2024, 5, 1),
    "at": datetime(2024, 5, 1, 12, tzinfo=UTC),
    "tags": ["a", "b"],
}


async def test_the_life_of_a_collection(either: Any, app: Any) -> None:
    recipe = Recipe(embedder={"kind": "precomputed", "space": "own", "dim": 2}, index={"kind": "flat"})
    created = await either.create_collection("docs", recipe=recipe)
    assert created == await either.get_collection("docs") == await either.compact("docs")
    assert [created] == await either.list_collections()
    assert created.serving.recipe == recipe
    assert [created.serving] == await either.versions("docs")
    assert created.serving == await either.get_version("docs", "v1")
    await either.delete_collection("docs")
    assert await either.list_collections() == []


async def test_a_collection_without_a_recipe_takes_the_server_s(either: Any, app: Any) -> None:
    await either.create_collection("docs")
    assert app.collections == {"docs": Recipe()}


async def test_documents_come_back_as_they_went_in(either: Any, app: Any) -> None:
    document = Document(id="1", text="text", title="title", metadata=METADATA, language="en")
    result = await either.upsert("docs", [document])
    assert (result.seq, result.documents) == (1, 1)
    assert await either.get_document("docs", "1") == document


async def test_a_vector_reaches_the_application_as_a_float32_row(either: Any, app: Any) -> None:
    row = np.array([0.5, -1], "f")
    await either.upsert("docs", [Document(id="1", text="text", vector=row)])
    await either.search("docs", vector=row, space="own", mode="dense")
    stored, asked = app.documents["1"].vector, app.calls[-1][1]["query"]
    assert stored.dtype == asked.vector.dtype == np.float32
    assert stored.tolist() == asked.vector.tolist() == [0.5, -1.0]
    assert asked.space == "own"


async def test_writes_carry_a_request_id_and_what_they_wait_for(either: Any, app: Any) -> None:
    await either.upsert("docs", [Document(id="1", text="text")])
    await either.upsert("docs", [Document(id="1", text="text")], request_id="mine", wait="committed")
    await either.delete("docs", ids=["1"])
    ids = [arguments["request_id"] for _, arguments in app.calls]
    assert [arguments["wait"] for _, arguments in app.calls] == ["indexed", "committed", "indexed"]
    assert ids[1] == "mine"
    assert len({*ids}) == 3
    assert all(ids)


async def test_listing_walks_through_all_pages(either: Any, app: Any) -> None:
    documents = [Document(id=f"{i:02}", text="text") for i in range(7)]
    await either.upsert("docs", documents)
    assert [found async for found in either.list_documents("docs", page_size=3)] == documents
    assert [name for name, _ in app.calls].count("list_documents") == 3


async def test_deleting_by_ids_or_by_filter(either: Any, app: Any) -> None:
    await either.upsert("docs", [Document(id="1", text="text")])
    assert (await either.delete("docs", ids=["1", "2"])).documents == 1
    await either.delete("docs", filter="year < 2020")
    assert app.calls[-1][1]["filter"] == "year < 2020"


async def test_every_argument_of_a_search_reaches_the_application(either: Any, app: Any) -> None:
    await either.search(
        "docs",
        "question",
        k=3,
        mode=Mode.LEXICAL,
        filter='lang = "en"',
        language="en",
        fusion=Fusion(kind="rrf", k=10, dense_weight=1.0, lexical_weight=2.0),
        depth=50,
        explain=True,
        page_token="1",
        min_seq=4,
        request_key="user 7",
        space="another",
        rerank=Rerank(depth=20, weight=0.25),
        version="v2",
    )
    assert app.calls[-1][1]["query"] == Query(
        text="question",
        k=3,
        mode=Mode.LEXICAL,
        filter='lang = "en"',
        language="en",
        fusion=Fusion(kind="rrf", k=10, dense_weight=1.0, lexical_weight=2.0),
        depth=50,
        explain=True,
        page_token="1",
        min_seq=4,
        request_key="user 7",
        space="another",
        rerank=Rerank(depth=20, weight=0.25),
        version="v2",
    )


async def test_a_fusion_may_be_given_by_name(either: Any, app: Any) -> None:
    await either.search("docs", "question", fusion="rrf")
    assert app.calls[-1][1]["query"].fusion == Fusion(kind="rrf")


@pytest.mark.parametrize(("given", "asked"), [(True, Rerank()), (False, Rerank(off=True)), (None, None)])
async def test_reranking_may_be_asked_for_with_yes_and_no(
    either: Any, app: Any, given: bool | None, asked: Rerank | None
) -> None:
    await either.search("docs", "question", rerank=given)
    assert app.calls[-1][1]["query"].rerank == asked


async def test_a_result_says_what_answered_and_how_completely(either: Any, app: Any) -> None:
    await either.upsert("docs", [Document(id="1", text="text", metadata=METADATA)])
    result = await either.search("docs", "question", explain=True)
    assert (result.version, result.space, result.seq) == ("v1", "s", 1)
    assert result.degraded == ("rerank",)
    assert result.timings_ms == {"dense": 0.5}
    assert result.hits[0].metadata == METADATA
    assert result.hits[0].legs[0].rank == 1


async def test_pages_follow_one_another_to_the_last(either: Any, app: Any) -> None:
    await either.upsert("docs", [Document(id=str(i), text="text") for i in range(5)])
    pages = [page async for page in either.search_pages("docs", "question", k=2)]
    assert [[hit.document_id for hit in page.hits] for page in pages] == [["0", "1"], ["2", "3"], ["4"]]


async def test_a_batch_is_answered_in_order(either: Any, app: Any) -> None:
    await either.upsert("docs", [Document(id=str(i), text="text") for i in range(5)])
    results = await either.batch_search("docs", [Query(text="a", k=1), Query(text="b", k=3)])
    assert [len(result.hits) for result in results] == [1, 3]


async def test_an_answer_is_a_stream_of_typed_events(either: Any, app: Any) -> None:
    events = [event async for event in either.answer("docs", "why?")]
    assert [type(event) for event in events] == [Contexts, TextDelta, Citation, Usage, Done]
    assert app.calls[0][1]["query"].k == 5


async def test_an_answer_takes_a_conversation_and_how_to_generate(either: Any, app: Any) -> None:
    history = (Turn(role=Role.USER, text="When?"), Turn(role=Role.ASSISTANT, text="In May."))
    generation = Generation(max_tokens=9, temperature=0.5, json_schema={"type": "object"})
    _ = [event async for event in either.answer("docs", "why?", history=history, generation=generation)]
    question = app.calls[0][1]["question"]
    assert (question.history, question.generation) == (history, generation)


async def test_embedding_gives_rows_in_order_and_their_space(either: Any, app: Any) -> None:
    embedded = await either.embed("docs", ["a", "bb"], kind="passage")
    assert [list(row) for row in embedded.vectors] == [[1.0, 1.0], [2.0, 1.0]]
    assert embedded.space == "s"
    assert embedded.truncations == {}
    assert app.calls[-1][1]["kind"] == "passage"


async def test_embedding_tells_which_texts_were_cut(either: Any) -> None:
    embedded = await either.embed("docs", ["short", "a long text", "long as well"])
    assert embedded.truncations == {1: Truncation(tokens=11, limit=8), 2: Truncation(tokens=12, limit=8)}


async def test_scores_of_a_reranker_come_in_the_order_of_the_texts(either: Any, app: Any) -> None:
    result = await either.rerank("docs", "why?", ["a", "bb", "ccc"], timeout=5.0)
    assert (result.scores, result.complete, result.version) == ((1.0, 2.0), False, "v1")
    assert app.calls[-1][1]["texts"] == ["a", "bb", "ccc"]
    assert 0 < app.calls[-1][1]["deadline_s"] < 6


async def test_what_answers_took_comes_by_day_for_the_tenant_that_asks(either: Any, app: Any) -> None:
    [record] = await either.usage(first_day=date(2026, 6, 1), last_day=date(2026, 6, 2))
    assert (record.day, record.tenant, record.answers) == (date(2026, 6, 1), ANYONE, 4)
    assert (record.usage.prompt_tokens, record.usage.cost) == (3, 0.25)
    assert app.calls[-1][1] == {
        "tenant": ANYONE,
        "first_day": date(2026, 6, 1),
        "last_day": date(2026, 6, 2),
    }
    await either.usage()
    assert app.calls[-1][1] == {"tenant": ANYONE, "first_day": None, "last_day": None}


async def test_info(either: Any, app: Any) -> None:
    info = await either.info()
    assert (info.version, info.max_k, info.embedder) == ("9", 2, {"kind": "fake"})


@pytest.mark.parametrize("service", ["", "ragstone.v1.Retrieval", "ragstone.v1.Documents"])
async def test_health_of_the_server_and_of_each_service(either: Any, service: str) -> None:
    assert await either.health(service) is Health.SERVING


async def test_the_deadline_of_a_call_reaches_the_application(either: Any, app: Any) -> None:
    await either.search("docs", "question", timeout=5.0)
    assert 0 < app.calls[-1][1]["deadline_s"] < 6
