"""``ragstone usage``: what answers took of generators."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from ragstone.answers import UsageRecord
from retrieval.cli import output
from retrieval.cli.options import JsonOption, ServerOption, connect

_DAY = ["%Y-%m-%d"]


def usage(
    since: Annotated[
        datetime | None, typer.Option("--since", formats=_DAY, help="The first day, in UTC.")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option("--until", formats=_DAY, help="The last day, in UTC.")
    ] = None,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what answers took of generators, by day; an operator sees every tenant."""
    with connect(server) as client:
        records = client.usage(first_day=_day(since), last_day=_day(until))
    if as_json:
        output.print_json({"records": [_as_json(record) for record in records]})
        return
    table = Table("day", "tenant", "by")
    for name in ("answers", "read", "cached", "written", "first ms", "cost"):
        table.add_column(name, justify="right")
    for record in records:
        by = f"{record.generator} ({record.model})"
        table.add_row(str(record.day), record.tenant, by, *_figures(record))
    output.stdout().print(table)


def _figures(record: UsageRecord) -> tuple[str, ...]:
    used = record.usage
    counts = (record.answers, used.prompt_tokens, used.cached_tokens, used.completion_tokens)
    return (
        *(f"{count:,}" for count in counts),
        f"{used.ttft_ms:,.0f}",
        "" if used.cost is None else f"{used.cost:.4f}",
    )


def _as_json(record: UsageRecord) -> dict[str, Any]:
    used = record.usage
    return {
        "day": record.day.isoformat(),
        "tenant": record.tenant,
        "generator": record.generator,
        "model": record.model,
        "answers": record.answers,
        "prompt_tokens": used.prompt_tokens,
        "cached_tokens": used.cached_tokens,
        "completion_tokens": used.completion_tokens,
        "queue_ms": round(used.queue_ms, 3),
        "ttft_ms": round(used.ttft_ms, 3),
        "tpot_ms": round(used.tpot_ms, 3),
        "cost": used.cost,
    }


def _day(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()
