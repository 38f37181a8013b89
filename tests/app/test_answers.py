"""Answers by the whole application: search, generators, citations, accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date
from typing import Any, Final

import pytest
from pydantic import SecretStr, ValidationError

from ragstone.answers import (
    Citation,
    Done,
    FinishReason,
    Generation,
    Role,
    Standalone,
    TextDelta,
    Turn,
    Usage,
    UsageRecord,
)
from ragstone.errors import BackendUnavailable, InvalidArgument
from ragstone.types import AnswerEvent, Contexts, Document, Query, Question, Recipe, Wait
from retrieval.config import AnswerSettings, AuthSettings, GeneratorSettings, Price, Settings
from retrieval.store.usage import Accounts
from retrieval.telemetry import Metrics
from retrieval.wiring import Ragstone, build
from tests.generator.servers import MODEL, ChatServer, Fault

FACT = "The harbour of Lindholm froze in January 1893."
ASKED = Question(query=Query(text="When did the harbour of Lindholm freeze?"))
EXTRACTIVE = GeneratorSettings(name="sentences", kind="extractive")


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    server = ChatServer()
    server.say = lambda request: ["The harbour froze in January 1893 ", "[1]. ", "Whales danced."]
    yield server
    server.close()


@asynccontextmanager
async def answering(
    settings: Settings, metrics: Metrics, *generators: GeneratorSettings, similarity: float | None = None
) -> AsyncIterator[Ragstone]:
    prices = {MODEL: Price(prompt=1.0, cached=0.1, completion=10.0)}
    answers = AnswerSettings(prices=prices, similarity=similarity)
    chosen = settings.model_copy(update={"generators": generators, "answers": answers})
    ragstone = await build(chosen, metrics)
    try:
        await ragstone.create_collection("docs", Recipe(index={"kind": "flat"}))
        documents = [Document(id="a", text=FACT), Document(id="b", text="Bees store honey in combs of wax.")]
        await ragstone.upsert("docs", documents, request_id="1", wait=Wait.INDEXED, tenant="t")
        yield ragstone
    finally:
        await ragstone.close()


def model(server: ChatServer, **options: Any) -> GeneratorSettings:
    return GeneratorSettings(name="model", options={"url": server.url, "retries": 0, **options}, failures=1)


async def events(ragstone: Ragstone, question: Question = ASKED, tenant: str = "t") -> list[AnswerEvent]:
    stream = ragstone.answer("docs", question, tenant=tenant, deadline_s=20.0)
    return [event async for event in stream]


def of(kind: type[Any], seen: Sequence[AnswerEvent]) -> list[Any]:
    return [event for event in seen if isinstance(event, kind)]


async def test_a_models_answer_has_contexts_text_citations_usage_and_an_end(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        seen = await events(ragstone)
    contexts, done = seen[0], seen[-1]
    assert isinstance(contexts, Contexts)
    assert isinstance(done, Done)
    [citation] = of(Citation, seen)
    text = "".join(event.text for event in of(TextDelta, seen))
    number = [hit.document_id for hit in contexts.hits].index(citation.document_id) + 1
    assert text == f"The harbour froze in January 1893 [{number}]. Whales danced."
    assert (done.answered_by, done.model, done.passed_over) == ("model", MODEL, ())
    assert len(of(Usage, seen)) == 1


async def test_sentences_that_rest_on_nothing_are_pointed_out(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        seen = await events(ragstone)
    text = "".join(event.text for event in of(TextDelta, seen))
    [done] = of(Done, seen)
    assert "Whales danced." in [text[span.start : span.end] for span in done.ungrounded]


async def test_an_answer_costs_what_the_price_table_says_and_is_counted(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        [usage] = of(Usage, await events(ragstone))
    fresh = usage.prompt_tokens - usage.cached_tokens
    cost = (fresh * 1.0 + usage.cached_tokens * 0.1 + usage.completion_tokens * 10.0) / 1e6
    assert usage.cost == pytest.approx(cost)
    counted = metrics.registry.get_sample_value
    labels = {"generator": "model", "tenant": "t"}
    assert counted("ragstone_generations_total", labels) == 1
    tokens = counted("ragstone_generation_tokens_total", {**labels, "kind": "prompt"})
    assert tokens == usage.prompt_tokens


async def test_tenants_have_salts_of_their_own_and_keep_them(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        for tenant, text in (("red", "When?"), ("blue", "When?"), ("red", "Why did it freeze?")):
            await events(ragstone, Question(query=Query(text=text)), tenant=tenant)
    salts = [request["cache_salt"] for request in chat_server.requests]
    assert salts[0] == salts[2] != salts[1]
    assert not any("red" in salt or "blue" in salt for salt in salts)


async def test_sentences_answer_when_the_model_is_away_and_the_answer_says_so(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    chat_server.faults.append(Fault(status=500, message="engine died"))
    async with answering(settings, metrics, model(chat_server), EXTRACTIVE) as ragstone:
        seen = await events(ragstone)
    [done] = of(Done, seen)
    assert done.answered_by == "sentences"
    assert "engine died" in done.passed_over[0]
    assert FACT in "".join(event.text for event in of(TextDelta, seen))


async def test_a_model_that_dies_in_the_middle_is_an_error_and_the_next_question_goes_to_the_next(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    chat_server.faults.append(Fault(cut_after=1))
    async with answering(settings, metrics, model(chat_server), EXTRACTIVE) as ragstone:
        with pytest.raises(BackendUnavailable):
            await events(ragstone)
        [done] = of(Done, await events(ragstone))
    assert done.answered_by == "sentences"
    assert "left alone" in done.passed_over[0]


LEANING: Final = Question(
    query=Query(text="Which year?", k=1),
    history=(Turn(role=Role.USER, text=ASKED.query.text), Turn(role=Role.ASSISTANT, text="In January.")),
)


def is_rewriting(request: Mapping[str, Any]) -> bool:
    return bool(request["messages"][0]["content"].startswith("You rewrite"))


def rewriting(server: ChatServer, *pieces: str) -> None:
    """Let the server answer with ``pieces`` when it is asked to make a question stand alone."""
    answers = server.say
    server.say = lambda request: pieces if is_rewriting(request) else answers(request)


async def test_a_question_that_leans_on_a_conversation_is_searched_as_the_model_puts_it(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    rewriting(chat_server, '"In which year did the harbour', ' of Lindholm freeze?"\nIt froze in')
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        seen = await events(ragstone, LEANING)
    assert isinstance(seen[0], Contexts)
    whole = "In which year did the harbour of Lindholm freeze?"
    assert seen[0].standalone == Standalone(text=whole, condensed_by="model")
    assert [hit.document_id for hit in seen[0].hits] == ["a"]


async def test_the_model_is_asked_what_the_user_asked_behind_the_conversation(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    rewriting(chat_server, "When did Lindholm freeze?")
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        await events(ragstone, LEANING)
    asked = "\n".join(message["content"] for message in chat_server.requests[1]["messages"])
    assert asked.rindex("Which year?") > asked.index("In January.")


async def test_what_it_took_to_make_the_question_stand_alone_is_a_part_of_the_account(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    rewriting(chat_server, "When did Lindholm freeze?")
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        [usage] = of(Usage, await events(ragstone, LEANING))
    sent = [sum(len(m["content"].split()) for m in r["messages"]) for r in chat_server.requests]
    assert len(sent) == 2
    assert usage.prompt_tokens == sum(sent)
    labels = {"generator": "model", "tenant": "t"}
    counted = metrics.registry.get_sample_value
    assert counted("ragstone_generation_tokens_total", {**labels, "kind": "prompt"}) == sum(sent)
    assert counted("ragstone_generations_total", labels) == 1


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(body=b"data: [DONE]\n\n")])
async def test_a_rule_makes_a_question_stand_alone_when_the_model_does_not(
    settings: Settings, metrics: Metrics, chat_server: ChatServer, fault: Fault
) -> None:
    chat_server.faults.append(fault)
    async with answering(settings, metrics, model(chat_server), EXTRACTIVE) as ragstone:
        seen = await events(ragstone, LEANING)
    assert isinstance(seen[0], Contexts)
    assert seen[0].standalone == Standalone(text=f"{ASKED.query.text} Which year?")
    assert [hit.document_id for hit in seen[0].hits] == ["a"]


async def test_without_a_conversation_nothing_is_rewritten(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        seen = await events(ragstone)
    assert isinstance(seen[0], Contexts)
    assert seen[0].standalone is None
    assert not any(map(is_rewriting, chat_server.requests))


async def test_what_is_asked_of_the_generation_reaches_the_model(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    generation = Generation(max_tokens=9, temperature=0.3, seed=1, stop=("STOP",))
    question = Question(query=ASKED.query, generation=generation)
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        await events(ragstone, question)
    expected: Mapping[str, Any] = {"max_tokens": 9, "temperature": 0.3, "seed": 1, "stop": ["STOP"]}
    assert expected.items() <= chat_server.requests[0].items()


async def test_the_same_question_over_the_same_passages_is_answered_from_memory(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        first, again = await events(ragstone), await events(ragstone)
        assert len(chat_server.requests) == 1
        texts = ["".join(event.text for event in of(TextDelta, seen)) for seen in (first, again)]
        assert texts[0] == texts[1]
        assert of(Citation, first) == of(Citation, again)
        assert [done.from_cache for seen in (first, again) for done in of(Done, seen)] == [False, True]

        await events(ragstone, tenant="another")
        assert len(chat_server.requests) == 2

        changed = Document(id="a", text=FACT + " It thawed in May.")
        await ragstone.upsert("docs", [changed], request_id="2", wait=Wait.INDEXED, tenant="t")
        await events(ragstone)
        assert len(chat_server.requests) == 3


@pytest.mark.parametrize(("similarity", "asked"), [(0.95, 1), (None, 2)])
async def test_the_same_question_in_other_words_is_answered_from_memory_where_that_is_set(
    settings: Settings, metrics: Metrics, chat_server: ChatServer, similarity: float | None, asked: int
) -> None:
    reworded = Question(query=Query(text="when did the harbour of Lindholm freeze"))
    async with answering(settings, metrics, model(chat_server), similarity=similarity) as ragstone:
        first, again = await events(ragstone), await events(ragstone, reworded)
    assert len(chat_server.requests) == asked
    [done] = of(Done, again)
    assert done.from_cache == (done.similarity is not None) == (asked == 1)
    assert of(Citation, first) == of(Citation, again)


async def test_an_answer_by_chance_is_not_given_again(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    question = Question(query=ASKED.query, generation=Generation(temperature=1.0))
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        for _ in range(2):
            await events(ragstone, question)
    assert len(chat_server.requests) == 2


async def test_nothing_found_is_an_outcome_and_no_error(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    nothing = Question(query=Query(text="anything", filter="lang = 'xx'"))
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        [done] = of(Done, await events(ragstone, nothing))
    assert (done.finish_reason, done.grounded) == (FinishReason.NO_EVIDENCE, None)
    assert not chat_server.requests


# -- accounts ----------------------------------------------------------------------------------------


async def used(ragstone: Ragstone, tenant: str = "t") -> Sequence[UsageRecord]:
    await ragstone._answerer.close()  # what is put down beside the answers
    return await ragstone.usage(tenant=tenant, first_day=None, last_day=None)


async def test_what_an_answer_took_is_in_its_tenants_accounts_and_survives_a_restart(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    rewriting(chat_server, "When did Lindholm freeze?")
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        [usage] = of(Usage, await events(ragstone, LEANING))
        assert await used(ragstone, "u") == []
    again = await build(settings)
    [record] = await used(again)
    await again.close()
    assert (record.tenant, record.generator, record.model, record.answers) == ("t", "model", MODEL, 1)
    counts = (record.usage.prompt_tokens, record.usage.cached_tokens, record.usage.completion_tokens)
    assert counts == (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    assert record.usage.cost == pytest.approx(usage.cost)


async def test_an_operator_sees_every_tenant(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    settings = settings.model_copy(
        update={"auth": AuthSettings(tokens={"boss": SecretStr("b")}, operators=("boss",))}
    )
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        for tenant in ("red", "blue"):
            await events(ragstone, tenant=tenant)
        assert [record.tenant for record in await used(ragstone, "boss")] == ["blue", "red"]
        assert [record.tenant for record in await used(ragstone, "red")] == ["red"]


def test_an_operator_has_a_token() -> None:
    with pytest.raises(ValidationError, match="bos, who have no token"):
        AuthSettings(tokens={"boss": SecretStr("b")}, operators=("bos",))


async def test_accounts_are_not_asked_for_backwards(settings: Settings, metrics: Metrics) -> None:
    async with answering(settings, metrics, EXTRACTIVE) as ragstone:
        with pytest.raises(InvalidArgument, match="first_day"):
            await ragstone.usage(tenant="t", first_day=date(2026, 6, 2), last_day=date(2026, 6, 1))


async def test_what_is_given_from_memory_is_in_no_account(
    settings: Settings, metrics: Metrics, chat_server: ChatServer
) -> None:
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        for _ in range(2):
            await events(ragstone)
        assert [record.answers for record in await used(ragstone)] == [1]


async def test_an_account_that_cannot_be_kept_costs_nobody_an_answer(
    settings: Settings, metrics: Metrics, chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise BackendUnavailable("the disk is full")

    monkeypatch.setattr(Accounts, "add", full)
    async with answering(settings, metrics, model(chat_server)) as ragstone:
        assert isinstance((await events(ragstone))[-1], Done)
