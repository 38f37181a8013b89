"""How results look: JSON with fixed keys on stdout, or tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any, Final

import typer
from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ragstone import errors
from ragstone.answers import Citation, Done, Usage
from ragstone.types import Document, Hit, SearchResult, Truncation
from retrieval.cli.options import shows_progress

SNIPPET_CHARS: Final = 280

HINTS: Final[Mapping[type[errors.RagstoneError], str]] = {
    errors.InvalidFilter: 'write filters as: lang = "en" AND year >= 2020 AND NOT tags:"draft"',
    errors.InvalidArgument: "correct the request; sent again as it is, it fails again",
    errors.NotFound: "`ragstone collections list` shows what is there",
    errors.AlreadyExists: "choose another name, or use the one that is there",
    errors.Conflict: "somebody else changed it; run the command again",
    errors.SpaceMismatch: "`ragstone collections show NAME` names the space of its vectors",
    errors.FailedPrecondition: "`ragstone collections show` and `ragstone versions list` tell the state",
    errors.Unauthenticated: "give valid credentials",
    errors.PermissionDenied: "ask the server's operator for access",
    errors.Overloaded: "the server is busy; run the command again later",
    errors.OutOfMemory: 'free memory on that device, or set device = "cpu" in the recipe',
    errors.DeadlineExceeded: "allow more time with --timeout",
    errors.BackendUnavailable: "name another server with --server, or see the log of this one",
    errors.CorruptIndex: "stop writing and look at the server's log before anything else",
    errors.Internal: "the server's log explains it under the id above",
}


def stdout() -> Console:
    """The console for data; long lines are not cut where nobody watches."""
    return Console(highlight=False)


def stderr() -> Console:
    """The console for progress, notes and errors."""
    return Console(stderr=True, highlight=False)


def counting() -> Progress:
    """A bar on stderr for what is counted, where somebody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=stderr(), transient=True, disable=not shows_progress())


def print_json(value: object) -> None:
    """Print one JSON object; dates are ISO 8601 text."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


# -- errors ---------------------------------------------------------------------------------


def error_line(error: errors.RagstoneError) -> str:
    """One line: the reason, what is wrong, each wrong field, and what to do next."""
    fields = "; ".join(f"{v.field}: {v.description}" for v in error.violations)
    parts = [f"{error.reason}: {error.message}"]
    if fields and fields not in error.message:
        parts.append(f"[{fields}]")
    parts.append(f"-- {_hint(error)}")
    return " ".join(" ".join(parts).split())


def _hint(error: errors.RagstoneError) -> str:
    hint = next((HINTS[cls] for cls in type(error).__mro__ if cls in HINTS), "see the server's log")
    return hint if error.retry_after_s is None else f"{hint} (in {error.retry_after_s:g} s)"


# -- JSON -----------------------------------------------------------------------------------


def hit_json(hit: Hit) -> dict[str, Any]:
    """A hit; ``legs`` only where the search explained itself."""
    value: dict[str, Any] = {
        "chunk_id": hit.chunk_id,
        "document_id": hit.document_id,
        "score": hit.score,
        "text": hit.text,
        "metadata": dict(hit.metadata),
    }
    if hit.legs:
        value["legs"] = [asdict(leg) for leg in hit.legs]
    return value


def search_json(result: SearchResult) -> dict[str, Any]:
    """A search's result; ``plan``, ``adapter`` and ``truncation`` only where there are any."""
    value: dict[str, Any] = {
        "hits": [hit_json(hit) for hit in result.hits],
        "version": result.version,
        "space": result.space,
        "seq": result.seq,
        "degraded": list(result.degraded),
        "timings_ms": dict(result.timings_ms),
    }
    if result.plan:
        value["plan"] = dict(result.plan)
    if result.adapter is not None:
        value["adapter"] = asdict(result.adapter)
    if result.truncation is not None:
        value["truncation"] = asdict(result.truncation)
    return value


def answer_json(
    text: str,
    citations: Sequence[Citation],
    contexts: Sequence[Hit],
    usage: Usage | None,
    done: Done | None,
) -> dict[str, Any]:
    """A whole answer; citations count code points of the cited document, and of the answer."""
    return {
        "answer": text,
        "citations": [
            {
                "chunk_id": c.chunk_id,
                "document_id": c.document_id,
                "start": c.start,
                "end": c.end,
                "answer_start": c.answer_start,
                "answer_end": c.answer_end,
            }
            for c in citations
        ],
        "contexts": [hit_json(hit) for hit in contexts],
        "usage": asdict(usage) if usage else {},
        "done": asdict(done) if done else {},
    }


def answer_lines(usage: Usage | None, done: Done | None) -> list[str]:
    """What there is to say below an answer: who answered, how well it is grounded, what it took."""
    if done is None:
        return []
    lines = [f"passed over {reason}" for reason in done.passed_over]
    if done.similarity is not None:
        lines.append(f"given before to a similar question, at a cosine of {done.similarity:.3f}")
    if done.grounded is not None and done.ungrounded:
        lines.append(f"{len(done.ungrounded)} sentences rest on no passage that they cite")
    if done.removed_marks:
        lines.append(f"{done.removed_marks} citations pointed nowhere and were left out")
    if usage is not None and usage.ttft_ms:
        lines.append(
            f"{done.answered_by} ({done.model}): {usage.prompt_tokens:,} tokens read, "
            f"{usage.cached_tokens:,} of them cached, {usage.completion_tokens:,} written; "
            f"first after {usage.ttft_ms:,.0f} ms"
        )
    return lines


def document_json(document: Document) -> dict[str, Any]:
    """A document without its vector."""
    return {
        "id": document.id,
        "title": document.title,
        "text": document.text,
        "language": document.language,
        "metadata": dict(document.metadata),
    }


# -- tables ---------------------------------------------------------------------------------


def snippet(text: str, chars: int = SNIPPET_CHARS) -> str:
    """The first ``chars`` characters of ``text`` on one line."""
    line = " ".join(text.split())
    return line if len(line) <= chars else line[: chars - 1].rstrip() + "…"


def hits_table(
    hits: Sequence[Hit], *, explain: bool = False, title: str = "", chars: int = SNIPPET_CHARS
) -> Table:
    """Hits, best first; ``explain`` adds what each leg thought."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("#", justify="right", style="dim")
    table.add_column("score", justify="right")
    table.add_column("passage", overflow="fold", ratio=1)
    if explain:
        table.add_column("legs: rank, score, share", overflow="fold")
    for rank, hit in enumerate(hits, start=1):
        row: list[RenderableType] = [str(rank), f"{hit.score:.3f}", _passage(hit, chars)]
        table.add_row(*row, *([_legs(hit)] if explain else []))
    return table


def _passage(hit: Hit, chars: int) -> Text:
    # A chunk's id begins with its document's: only the rest of it is news.
    title = "" if hit.title == hit.document_id else hit.title
    return Text.assemble(
        (hit.document_id, "bold cyan"),
        (hit.chunk_id.removeprefix(hit.document_id), "dim"),
        (f"  {snippet(title, 80)}" if title else "", "dim"),
        "\n",
        snippet(hit.text, chars),
    )


def _legs(hit: Hit) -> str:
    lines = (f"{leg.leg} #{leg.rank}, {leg.score:.3f}, +{leg.contribution:.3f}" for leg in hit.legs)
    return "\n".join(lines)


def result_line(result: SearchResult) -> str:
    """What answered and how long it took, on one line."""
    total = result.timings_ms.get("total", sum(result.timings_ms.values()))
    line = f"version {result.version}, space {result.space}, seq {result.seq}, {total:.1f} ms"
    if result.adapter is not None:
        line = f"{line}, asked in {result.adapter.from_space} ({result.adapter.kind})"
    return f"{line}, without: {', '.join(result.degraded)}" if result.degraded else line


def truncation_line(cut: Truncation) -> str:
    """That a query was cut, and where, on one line."""
    return (
        f"the query has {cut.tokens:,} tokens, of which the embedder read the first {cut.limit:,}: "
        "only the lexical leg knows the rest"
    )


def plan_lines(result: SearchResult) -> Iterator[str]:
    """How each leg looked, where the search explained itself."""
    return (f"{leg}: {how}" for leg, how in result.plan.items())


def duration(seconds: float) -> str:
    """The two largest units: ``2 h 05 min``, ``3 min 20 s``, ``12 s``."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, rest_min = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {rest_min:02} min"
    return f"{minutes} min {rest_s:02} s" if minutes else f"{rest_s} s"


def facts(value: Mapping[str, Any], *, prefix: str = "") -> Table:
    """A two-column table of a nested mapping, keys joined by dots."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, entry in _flat(value, prefix):
        table.add_row(key, Text(entry))
    return table


def _flat(value: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, str]]:
    for key, entry in value.items():
        if isinstance(entry, Mapping):
            yield from _flat(entry, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(entry)
