"""Accounts: what answers took of generators, by day, tenant, generator and model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Final, TypedDict, Unpack

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.sql.functions import coalesce

from ragstone.answers import Usage, UsageRecord
from retrieval.store import schema
from retrieval.store.database import Database
from retrieval.store.queries import AnyRow
from retrieval.store.values import utc_now

_usage = schema.generation_usage
_KEY: Final = ("day", "tenant", "generator", "model")


class Used(TypedDict):
    """What is put down; ``answers`` is 0 for what is only a part of one."""

    tenant: str
    generator: str
    model: str
    usage: Usage
    answers: int


class Accounts:
    """The accounts of all tenants. Days are those of UTC."""

    def __init__(self, db: Database, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._db = db
        self._clock = clock

    async def add(self, **put: Unpack[Used]) -> None:
        """Put what was used down for today."""
        usage, answers = put["usage"], put["answers"]
        key = {
            "day": self._clock().date(),
            "tenant": put["tenant"],
            "generator": put["generator"],
            "model": put["model"],
        }
        used = {
            "answers": answers,
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "queue_ms": answers * usage.queue_ms,
            "ttft_ms": answers * usage.ttft_ms,
            "writing_ms": usage.tpot_ms * max(0, usage.completion_tokens - 1),
        }

        def work(connection: Connection) -> None:
            more = {name: _usage.c[name] + value for name, value in used.items()}
            if usage.cost is not None:
                more["cost"] = coalesce(_usage.c.cost, 0.0) + usage.cost
            own = [_usage.c[name] == value for name, value in key.items()]
            if not connection.execute(update(_usage).where(*own).values(more)).rowcount:
                connection.execute(insert(_usage).values(**key, **used, cost=usage.cost))

        await self._db.write(work)

    async def of(self, tenant: str | None, *, first: date | None, last: date | None) -> list[UsageRecord]:
        """The accounts of a tenant, None for all, from ``first`` to ``last``; newest day first."""
        rows = select(_usage).order_by(_usage.c.day.desc(), *(_usage.c[name] for name in _KEY[1:]))
        if tenant is not None:
            rows = rows.where(_usage.c.tenant == tenant)
        if first is not None:
            rows = rows.where(_usage.c.day >= first)
        if last is not None:
            rows = rows.where(_usage.c.day <= last)
        return await self._db.read(lambda connection: [_record(row) for row in connection.execute(rows)])


def _record(row: AnyRow) -> UsageRecord:
    answers, written = max(1, row.answers), max(1, row.completion_tokens - row.answers)
    return UsageRecord(
        day=row.day,
        tenant=row.tenant,
        generator=row.generator,
        model=row.model,
        answers=row.answers,
        usage=Usage(
            prompt_tokens=row.prompt_tokens,
            cached_tokens=row.cached_tokens,
            completion_tokens=row.completion_tokens,
            queue_ms=row.queue_ms / answers,
            ttft_ms=row.ttft_ms / answers,
            tpot_ms=row.writing_ms / written,
            cost=row.cost,
        ),
    )
