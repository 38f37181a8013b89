"""How collections, versions, plans and comparisons look: JSON with fixed keys, or tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from rich import box
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from ragstone.types import (
    Collection,
    Comparison,
    Gate,
    Latency,
    ParkedText,
    QueryAdapter,
    RebuildPlan,
    Recipe,
    Traffic,
    Version,
    VersionEvent,
)
from retrieval.cli.output import duration, facts


def version_json(version: Version) -> dict[str, Any]:
    """A version with its recipe; ``progress`` is null where nothing is being built."""
    return {
        "name": version.name,
        "collection": version.collection,
        "state": version.state,
        "space": version.space,
        "dim": version.dim,
        "applied_seq": version.applied_seq,
        "created_at": version.created_at.isoformat(),
        "recipe": _recipe_json(version.recipe),
        "stats": _sorted(version.stats),
        "progress": None if version.progress is None else asdict(version.progress),
        "reason": version.reason,
        "gates": [asdict(gate) for gate in version.gates],
        "parked": [asdict(text) for text in version.parked],
        "traffic": None if version.traffic is None else asdict(version.traffic),
        "adapter": None if version.adapter is None else asdict(version.adapter),
        "history": [
            {"event": past.event, "at": past.at.isoformat(), "detail": _sorted(past.detail)}
            for past in version.history
        ],
    }


def comparison_json(found: Comparison) -> dict[str, Any]:
    """A comparison, with the version that is better where that can be said."""
    return {**asdict(found), "better": found.better or None}


def plan_json(plan: RebuildPlan) -> dict[str, Any]:
    """The plan of a rebuild; seconds and bytes as numbers."""
    return {**asdict(plan), "recipe": _recipe_json(plan.recipe), "notes": list(plan.notes)}


def _recipe_json(recipe: Recipe) -> dict[str, Any]:
    return {name: _sorted(section) for name, section in asdict(recipe).items() if section}


def _sorted(value: Mapping[str, Any]) -> dict[str, Any]:
    """By key: the wire keeps no order."""
    return {
        key: _sorted(entry) if isinstance(entry, Mapping) else entry for key, entry in sorted(value.items())
    }


def collection_json(collection: Collection) -> dict[str, Any]:
    """A collection with its serving version."""
    return {
        "name": collection.name,
        "documents": collection.documents,
        "chunks": collection.chunks,
        "seq": collection.seq,
        "created_at": collection.created_at.isoformat(),
        "serving": version_json(collection.serving),
    }


def version_facts(version: Version) -> Table:
    """A version but for what has tables of its own, and for what there is not."""
    value = version_json(version)
    tables = ("gates", "parked", "traffic", "history", "adapter")
    return facts(
        {key: entry for key, entry in value.items() if key not in tables and entry not in (None, "")}
    )


def state(version: Version) -> str:
    """The state, with how much of it is done."""
    if version.progress is None or not version.progress.chunks_total:
        return version.state
    return f"{version.state}, {version.progress.chunks_done / version.progress.chunks_total:.0%}"


def gates_table(gates: Sequence[Gate]) -> Table:
    """What was checked before promotion."""
    table = Table("gate", "passed", "value", "limit", "detail", box=box.SIMPLE_HEAD)
    for gate in gates:
        passed = Text("yes", "green") if gate.passed else Text("no", "bold red")
        table.add_row(Text(gate.name), passed, f"{gate.value:.6g}", f"{gate.limit:.6g}", Text(gate.detail))
    return table


def adapter_line(adapter: QueryAdapter) -> str:
    """What is known of the adapter of a version that is being built, on one line."""
    if not adapter.kind:
        return f"query adapter: none, {adapter.reason}"
    may = "may be used" if adapter.passed else "may not be used"
    return (
        f"query adapter: {adapter.kind}, recall@10 {adapter.recall:.3f} (limit {adapter.limit:g}, "
        f"{adapter.texts:,} texts): {may}"
    )


def history_table(history: Sequence[VersionEvent]) -> Table:
    """What happened to a version, and what somebody did in spite of which gates."""
    table = Table("at", "event", "detail", box=box.SIMPLE_HEAD)
    for past in history:
        table.add_row(f"{past.at:%Y-%m-%d %H:%M:%S}", past.event, Text("; ".join(_told(past.detail))))
    return table


def _told(detail: Mapping[str, Any]) -> Iterator[str]:
    failed = [gate for gate in detail.get("gates", ()) if not gate["passed"]]
    if detail.get("forced"):
        yield "forced"
    for gate in failed:
        yield f"{gate['name']} was {gate['value']:.6g}, the limit {gate['limit']:.6g}"
    if detail.get("instead_of"):
        yield f"instead of {detail['instead_of']}"
    if detail.get("reason"):
        yield str(detail["reason"])


def comparison_table(found: Comparison) -> Table:
    """How each of two versions did."""
    table = Table("version", "failed", "p50 ms", "p95 ms", "nDCG@10", box=box.SIMPLE_HEAD)
    for one in (found.a, found.b):
        quality = "" if one.ndcg is None else f"{one.ndcg:.4f}"
        table.add_row(one.version, str(one.failed), f"{one.p50_ms:.1f}", f"{one.p95_ms:.1f}", quality)
    return table


def comparison_lines(found: Comparison) -> Iterator[str]:
    """What is said of both together."""
    skipped = f", {found.skipped:,} that one of them cannot be asked" if found.skipped else ""
    yield f"{found.queries:,} queries ({found.source}){skipped}"
    yield f"overlap@10 {found.overlap:.3f}, rank-biased overlap {found.rank_biased_overlap:.3f}"
    if (delta := found.ndcg_delta) is not None:
        better = f"{found.better} is better" if found.better else "which is better cannot be said"
        yield (
            f"nDCG@10 of {found.b.version} less {found.a.version}: {delta.mean:+.4f} "
            f"(95%: {delta.low:+.4f} to {delta.high:+.4f}, {found.judged:,} judged): {better}"
        )


def shares(version: Version) -> str:
    """The shares that a version has: ``5% of the searches as a canary, 20% of the searches as a shadow``."""
    given = version.traffic or Traffic()
    named = ((given.canary, "a canary"), (given.shadow, "a shadow"))
    return (
        ", ".join(f"{100 * share:g}% of the searches as {role}" for share, role in named if share)
        or "no searches"
    )


def traffic_table(traffic: Traffic) -> Table:
    """What was seen of a version on live searches: as a shadow, and as a canary."""
    table = Table("traffic", "shadow", "canary", box=box.SIMPLE_HEAD)
    table.add_row("share", f"{100 * traffic.shadow:g}%", f"{100 * traffic.canary:g}%")
    table.add_row("answered", f"{traffic.mirrored:,}", f"{traffic.canary_answered:,}")
    table.add_row("failed", f"{traffic.failed:,}", f"{traffic.canary_failed:,}")
    table.add_row("skipped", f"{traffic.skipped:,}", "")
    table.add_row("dropped", f"{traffic.dropped:,}", "")
    for mean, name in ((traffic.mean_rbo, "mean rbo"), (traffic.mean_overlap, "mean overlap@10")):
        table.add_row(name, "" if mean is None else f"{mean:.3f}", "")
    shadow, canary = _latencies(traffic.shadow_latency), _latencies(traffic.canary_latency)
    for name, of_shadow, of_canary in zip(_LATENCIES, shadow, canary, strict=True):
        table.add_row(name, of_shadow, of_canary)
    return table


def traffic_notes(traffic: Traffic) -> Iterator[str]:
    """Why the canary was stopped, and what the last failure was, where there are any."""
    if traffic.stopped:
        yield f"the canary was stopped: {traffic.stopped}"
    if traffic.last_failure:
        yield f"the last search that it could not answer: {traffic.last_failure}"


_LATENCIES: Final = ("p50, p95", "serving p50, p95")


def _latencies(latency: Latency | None) -> tuple[str, str]:
    """The version's, and the serving one's; empty where there is none."""
    if latency is None:
        return "", ""
    own = f"{latency.p50_ms:.1f}, {latency.p95_ms:.1f} ms"
    if latency.serving_p50_ms is None or latency.serving_p95_ms is None:
        return own, ""
    return own, f"{latency.serving_p50_ms:.1f}, {latency.serving_p95_ms:.1f} ms"


def parked_table(parked: Sequence[ParkedText]) -> Table:
    """Texts that re-embedding jobs could not embed."""
    table = Table("parked", "reason", box=box.SIMPLE_HEAD)
    for text in parked:
        table.add_row(Text(text.chunk_id), Text(text.reason))
    return table


def plan_table(plan: RebuildPlan) -> Table:
    """What a rebuild would do and take."""
    about = "about " if plan.chunks_estimated else ""
    value = {
        "documents": f"{plan.documents:,}",
        "chunks": f"{about}{plan.chunks:,}",
        "space": plan.space,
        "dim": plan.dim,
        "to embed": f"{about}{plan.texts_to_embed:,} texts, {plan.tokens:,} tokens",
        "embedding": f"about {duration(plan.embed_s)}",
        "building": f"about {duration(plan.build_s)}",
        "disk": f"about {decimal(plan.disk_bytes)}",
        "memory": f"about {decimal(plan.memory_bytes)}",
        "recipe": _recipe_json(plan.recipe),
    }
    return facts({**value, **{f"note {i}": note for i, note in enumerate(plan.notes, start=1)}})
