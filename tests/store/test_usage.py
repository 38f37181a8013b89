"""Accounts of what answers took."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from typing import Any

from ragstone.answers import Usage
from retrieval.store.database import Database
from retrieval.store.usage import Accounts

MAY, JUNE = date(2026, 5, 31), date(2026, 6, 1)
USED = Usage(
    prompt_tokens=100,
    cached_tokens=40,
    completion_tokens=11,
    ttft_ms=50.0,
    tpot_ms=8.0,
    queue_ms=6.0,
    cost=0.5,
)


def accounts(db: Database, day: date = MAY) -> Accounts:
    return Accounts(db, clock=lambda: datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC))


async def put(
    book: Accounts,
    usage: Usage = USED,
    *,
    answers: int = 1,
    tenant: str = "t",
    generator: str = "g",
    model: str = "m",
) -> None:
    await book.add(tenant=tenant, generator=generator, model=model, usage=usage, answers=answers)


async def everything(book: Accounts) -> list[Any]:
    return await book.of(None, first=None, last=None)


async def test_what_is_used_in_a_day_adds_up_and_times_are_means(db: Database) -> None:
    book = accounts(db)
    await put(book)
    await put(book, Usage(prompt_tokens=1, completion_tokens=21, ttft_ms=70.0, tpot_ms=5.0, cost=0.25))
    [record] = await everything(book)
    assert (record.day, record.tenant, record.generator, record.model) == (MAY, "t", "g", "m")
    assert record.answers == 2
    assert record.usage == Usage(
        prompt_tokens=101,
        cached_tokens=40,
        completion_tokens=32,
        ttft_ms=60.0,
        queue_ms=3.0,
        tpot_ms=(10 * 8.0 + 20 * 5.0) / 30,
        cost=0.75,
    )


async def test_a_part_of_an_answer_adds_tokens_and_no_answer(db: Database) -> None:
    book = accounts(db)
    await put(book)
    await put(book, Usage(prompt_tokens=9, completion_tokens=1, ttft_ms=900.0, cost=0.1), answers=0)
    [record] = await everything(book)
    assert (record.answers, record.usage.prompt_tokens, record.usage.ttft_ms) == (1, 109, 50.0)


async def test_what_has_no_price_costs_nothing_that_is_known(db: Database) -> None:
    book = accounts(db)
    await put(book, Usage(prompt_tokens=1))
    assert (await everything(book))[0].usage.cost is None
    await put(book, Usage(prompt_tokens=1, cost=0.25))
    await put(book, Usage(prompt_tokens=1))
    assert (await everything(book))[0].usage.cost == 0.25


async def test_days_tenants_generators_and_models_are_apart_newest_day_first(db: Database) -> None:
    for day in (MAY, JUNE):
        book = accounts(db, day)
        await put(book)
        await put(book, tenant="u")
        await put(book, generator="h")
        await put(book, model="n")
    found = [(r.day, r.tenant, r.generator, r.model) for r in await everything(accounts(db))]
    keys = [("t", "g", "m"), ("t", "g", "n"), ("t", "h", "m"), ("u", "g", "m")]
    assert found == [(day, *key) for day in (JUNE, MAY) for key in keys]


async def test_a_tenant_has_its_own_and_days_are_chosen_with_their_ends(db: Database) -> None:
    for day in (MAY, JUNE):
        for tenant in ("t", "u"):
            await put(accounts(db, day), tenant=tenant)
    book = accounts(db)
    assert {record.tenant for record in await book.of("u", first=None, last=None)} == {"u"}
    assert [record.day for record in await book.of("t", first=JUNE, last=None)] == [JUNE]
    assert [record.day for record in await book.of("t", first=None, last=MAY)] == [MAY]
    assert len(await book.of("t", first=MAY, last=JUNE)) == 2


async def test_answers_that_end_together_are_all_counted(db: Database) -> None:
    book = accounts(db)
    await asyncio.gather(*(put(book) for _ in range(20)))
    [record] = await everything(book)
    assert (record.answers, record.usage.prompt_tokens) == (20, 2_000)
