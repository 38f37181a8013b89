"""Rebuilds and versions from the shell, against a real server before an application that only pretends."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import Result

from indexes.dense.pgvector.options import HnswOptions, IvfflatOptions
from indexes.dense.qdrant.options import QdrantOptions
from ragstone import (
    Comparison,
    Gate,
    GoldenQuery,
    Interval,
    Latency,
    MeasuredVersion,
    Progress,
    QuerySource,
    RebuildPlan,
    Recipe,
    Traffic,
    Version,
    VersionEvent,
    errors,
)
from retrieval.api.server import Server, ServerOptions
from retrieval.cli import output, watching
from retrieval.cli.index_option import PGVECTOR, QDRANT
from retrieval.telemetry import Metrics

Run = Callable[..., Result]
RunJson = Callable[..., Any]

PROGRESS = Progress(
    chunks_done=500,
    chunks_total=2_000,
    embedded=400,
    reused=100,
    chunks_per_s=50.0,
    seconds_left=200.0,
    lag=3,
)
BUILDING = Version(
    name="v2",
    collection="docs",
    state="building",
    recipe=Recipe(index={"kind": "flat"}),
    space="s",
    dim=2,
    applied_seq=3,
    created_at=datetime(2024, 5, 1, tzinfo=UTC),
    progress=PROGRESS,
)
READY = replace(
    BUILDING,
    state="ready",
    progress=None,
    gates=(Gate(name="recall", passed=False, value=0.91, limit=0.98, detail="100 queries"),),
)
FAILED = replace(READY, state="failed", reason="the disk is full", gates=())
COMPARISON = Comparison(
    a=MeasuredVersion(version="v1", failed=0, p50_ms=5.0, p95_ms=9.0, ndcg=0.7),
    b=MeasuredVersion(version="v2", failed=1, p50_ms=4.0, p95_ms=8.0, ndcg=0.75),
    source=QuerySource.RECORDED,
    queries=100,
    skipped=2,
    overlap=0.8,
    rank_biased_overlap=0.85,
    judged=100,
    ndcg_delta=Interval(mean=0.05, low=0.01, high=0.09),
)
PLAN = RebuildPlan(
    recipe=BUILDING.recipe,
    space="s",
    dim=2,
    documents=1_000,
    chunks=2_000,
    chunks_estimated=True,
    texts_to_embed=1_900,
    tokens=90_000,
    embed_s=8_000.0,
    build_s=200.0,
    disk_bytes=3_000_000,
    memory_bytes=4_000_000,
    notes=("The space [changes].",),
)


class Rebuilds:
    """What an application does for versions: a rebuild goes through ``stages``."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.stages: list[Version] = [BUILDING, READY]
        self.error: errors.RagstoneError | None = None

    def _called(self, *call: Any) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    async def versions(self, collection: str) -> list[Version]:
        return self.stages

    async def get_version(self, collection: str, name: str) -> Version:
        return self.stages[0]

    async def create_version(self, collection: str, recipe: Recipe, *, paused: bool = False) -> Version:
        self._called("create", collection, recipe)
        return self.stages[0]

    async def plan_version(self, collection: str, recipe: Recipe) -> RebuildPlan:
        self._called("plan", collection, recipe)
        return PLAN

    async def watch_version(self, collection: str, name: str) -> AsyncIterator[Version]:
        for version in self.stages:
            yield version

    async def compare_versions(
        self, collection: str, a: str, b: str, *, queries: Sequence[GoldenQuery], source: QuerySource | None
    ) -> Comparison:
        self._called("compare", collection, a, b, len(queries), source)
        return COMPARISON

    async def promote_version(
        self, collection: str, name: str, *, force: bool, limits: Mapping[str, Any]
    ) -> Version:
        self._called("promote", collection, name, force, limits)
        return replace(READY, state="serving")

    async def rollback(self, collection: str) -> Version:
        self._called("rollback", collection)
        return replace(READY, name="v1", state="serving")

    async def pause_version(self, collection: str, name: str) -> Version:
        self._called("pause", collection, name)
        return replace(BUILDING, state="paused")

    async def resume_version(self, collection: str, name: str) -> Version:
        self._called("resume", collection, name)
        return BUILDING

    async def set_traffic(
        self, collection: str, version: str, *, shadow: float | None, canary: float | None
    ) -> Version:
        self._called("traffic", collection, version, shadow, canary)
        return replace(READY, traffic=Traffic(shadow=shadow or 0.0, canary=canary or 0.0))

    async def delete_version(self, collection: str, name: str) -> int:
        self._called("delete", collection, name)
        return 5_000_000

    async def close(self) -> None:
        pass


@pytest.fixture
def rebuilds() -> Rebuilds:
    return Rebuilds()


@pytest.fixture
def address(rebuilds: Rebuilds) -> Iterator[str]:
    """The address of a server of ``rebuilds``, in a thread of its own."""
    started: SimpleQueue[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = SimpleQueue()

    async def serve() -> None:
        leaving = asyncio.Event()
        options = ServerOptions(listen="127.0.0.1:0", drain_s=0.0, grace_s=0.5)
        server = Server(cast(Any, rebuilds), options, Metrics(CollectorRegistry()))
        started.put((await server.start(), asyncio.get_running_loop(), leaving))
        await leaving.wait()
        await server.stop()

    thread = Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    served, loop, leaving = started.get(timeout=10)
    yield served
    loop.call_soon_threadsafe(leaving.set)
    thread.join()


# -- what a rebuild is asked for --------------------------------------------------------------


def test_the_options_become_an_overlay_of_the_serving_recipe(run: Run, rebuilds: Rebuilds) -> None:
    options = ("--index", "ivf_pq", "--shards", "4", "--embedder", "sentence_transformer", "--model", "an/id")
    assert run("rebuild", "docs", *options, "--chunk-tokens", "64").exit_code == 0
    assert rebuilds.calls == [
        (
            "create",
            "docs",
            Recipe(
                embedder={"kind": "sentence_transformer", "model": "an/id"},
                chunker={"max_tokens": 64},
                index={"kind": "ivf_pq", "shards": 4},
            ),
        )
    ]


def test_an_address_names_an_index_in_postgresql_and_its_options(run: Run, rebuilds: Rebuilds) -> None:
    address = "pgvector://me@db:5433/rag?method=hnsw&sslmode=require&ef_search=80&options=-c%20a%3Db"
    assert run("rebuild", "docs", "--index", address).exit_code == 0
    url = "postgresql://me@db:5433/rag?sslmode=require&options=-c%20a%3Db"
    index = {"kind": "pgvector", "url": url, "method": "hnsw", "ef_search": "80"}
    assert rebuilds.calls == [("create", "docs", Recipe(index=index))]


def test_an_address_may_have_every_option_of_an_index_in_postgresql() -> None:
    known = {name for model in (HnswOptions, IvfflatOptions) for name in model.model_fields}
    assert {*PGVECTOR, "url"} == {*known, "metric"}


@pytest.mark.parametrize(("scheme", "of_url"), [("qdrant", "http"), ("qdrants", "https")])
def test_an_address_names_an_index_in_qdrant_and_its_options(
    run: Run, rebuilds: Rebuilds, scheme: str, of_url: str
) -> None:
    address = f"{scheme}://store:6333?shard_number=4&quantization=scalar"
    assert run("rebuild", "docs", "--index", address).exit_code == 0
    url = f"{of_url}://store:6333"
    index = {"kind": "qdrant", "url": url, "shard_number": "4", "quantization": "scalar"}
    assert rebuilds.calls == [("create", "docs", Recipe(index=index))]


def test_an_address_may_have_every_option_of_an_index_in_qdrant_but_a_folder() -> None:
    assert {*QDRANT, "url", "path", "graph_at"} >= {*QdrantOptions.model_fields, "metric"}
    assert {*QDRANT} <= {*QdrantOptions.model_fields, "metric"}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("0.95", 0.95),
        ("64", 64),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ('"64"', "64"),
        ("an/id=x", "an/id=x"),
        ("", ""),
    ],
)
def test_any_option_can_be_set_to_a_toml_value_or_to_text(
    run: Run, rebuilds: Rebuilds, given: str, value: Any
) -> None:
    assert run("rebuild", "docs", "--set", f"index.anything={given}").exit_code == 0
    assert rebuilds.calls == [("create", "docs", Recipe(index={"anything": value}))]


def test_a_file_gives_way_to_options_and_these_to_what_is_set(
    run: Run, rebuilds: Rebuilds, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[index]\nkind = "flat"\nshards = 2\nfreeze_at = 9\n[fusion]\nkind = "rrf"\n')
    options = ("--recipe", str(recipe), "--index", "hnsw", "--shards", "3", "--set", "index.shards=4")
    assert run("rebuild", "docs", *options).exit_code == 0
    index = {"kind": "hnsw", "shards": 4, "freeze_at": 9}
    assert rebuilds.calls == [("create", "docs", Recipe(index=index, fusion={"kind": "rrf"}))]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--set", "index.shards"),
        ("--set", "shards=4"),
        ("--set", "indices.shards=4"),
        ("--index", "best"),
        ("--index", "mysql://host/db"),
        ("--model", "x", "--dry-run", "--promote"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    run: Run, rebuilds: Rebuilds, options: tuple[str, ...]
) -> None:
    assert run("rebuild", "docs", *options).exit_code == 2
    assert rebuilds.calls == []


def test_a_rebuild_goes_on_without_its_caller(run: Run, rebuilds: Rebuilds) -> None:
    result = run("rebuild", "docs", "--index", "flat")
    assert "version v2 of docs is building" in result.stdout
    assert "ragstone versions watch docs v2" in result.stdout


def test_an_error_of_a_rebuild_is_one_line_and_exit_code_1(run: Run, rebuilds: Rebuilds) -> None:
    rebuilds.error = errors.Conflict("version v2 is being built")
    result = run("rebuild", "docs", "--index", "flat")
    assert result.exit_code == 1
    assert result.stderr.startswith("ragstone: CONFLICT: version v2 is being built")


# -- plans ------------------------------------------------------------------------------------


def test_a_dry_run_builds_nothing_and_prints_the_plan(run: Run, rebuilds: Rebuilds) -> None:
    result = run("rebuild", "docs", "--index", "flat", "--dry-run")
    assert rebuilds.calls == [("plan", "docs", Recipe(index={"kind": "flat"}))]
    for fact in (
        "about 2,000",
        "90,000 tokens",
        "2 h 13 min",
        "3 min 20 s",
        "3.0 MB",
        "The space [changes].",
    ):
        assert fact in result.stdout


def test_a_plan_as_json_has_plain_numbers(run_json: RunJson) -> None:
    value = run_json("rebuild", "docs", "--index", "flat", "--dry-run")
    assert value == {**asdict(PLAN), "recipe": {"index": {"kind": "flat"}}, "notes": list(PLAN.notes)}


# -- watching and promoting -------------------------------------------------------------------


def test_watching_ends_with_what_was_checked(run: Run, rebuilds: Rebuilds) -> None:
    result = run("rebuild", "docs", "--index", "flat", "--watch")
    assert result.exit_code == 0
    assert "version v2 of docs is ready" in result.stdout
    assert "recall" in result.stdout
    assert "ragstone versions promote docs v2 --force" in result.stdout  # the gate did not pass


def test_promoting_waits_until_the_version_is_ready(run_json: RunJson, rebuilds: Rebuilds) -> None:
    assert run_json("rebuild", "docs", "--index", "flat", "--promote")["state"] == "serving"
    assert [call[0] for call in rebuilds.calls] == ["create", "promote"]


def test_a_rebuild_that_fails_is_not_promoted_and_says_why(run: Run, rebuilds: Rebuilds) -> None:
    rebuilds.stages = [BUILDING, FAILED]
    result = run("rebuild", "docs", "--index", "flat", "--promote", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["state"] == "failed"
    assert "the disk is full" in result.stderr
    assert [call[0] for call in rebuilds.calls] == ["create"]


def test_watching_can_begin_later(run: Run, run_json: RunJson, rebuilds: Rebuilds) -> None:
    assert run_json("versions", "watch", "docs", "v2")["state"] == "ready"
    rebuilds.stages = [BUILDING, FAILED]
    result = run("versions", "watch", "docs", "v2")
    assert result.exit_code == 1
    assert "version v2 of docs is failed: the disk is full" in result.stderr


@pytest.mark.parametrize(
    "command", [("rebuild", "docs", "--index", "flat", "--promote"), ("versions", "watch", "docs", "v2")]
)
def test_ctrl_c_leaves_the_rebuild_running_and_says_so(
    run: Run, rebuilds: Rebuilds, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(version: Version) -> dict[str, Any]:
        seen.append(version.state)
        if len(seen) == 2:  # the first one of the stream: the watch is under way
            signal.raise_signal(signal.SIGINT)
        return {}

    seen: list[str] = []
    monkeypatch.setattr(watching, "look", look)
    result = run(*command)
    assert result.exit_code == 130
    assert "the rebuild goes on" in result.stderr
    assert "ragstone versions watch docs v2" in result.stderr
    assert "promote" not in [call[0] for call in rebuilds.calls]


def test_the_bar_leaves_standard_output_to_the_data(
    run_json: RunJson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "shows_progress", lambda: True)
    assert run_json("versions", "watch", "docs", "v2")["state"] == "ready"


def test_the_bar_tells_pace_time_left_and_lag() -> None:
    shown = watching.look(replace(BUILDING, state="catching_up"))
    assert shown["description"] == "v2 catching up"
    assert (shown["completed"], shown["total"]) == (500, 2_000)
    assert shown["pace"] == "500 of 2,000 chunks, 50 a second, 3 min 20 s left, 3 behind"


def test_the_bar_tells_why_a_rebuild_is_paused() -> None:
    unknown = replace(PROGRESS, chunks_per_s=0.0, seconds_left=None, lag=0)
    shown = watching.look(replace(BUILDING, state="paused", reason="the disk is full", progress=unknown))
    assert shown["pace"] == "500 of 2,000 chunks, the disk is full"


# -- versions ---------------------------------------------------------------------------------


def test_a_list_tells_how_far_a_rebuild_is(run: Run) -> None:
    assert "building, 25%" in run("versions", "list", "docs").stdout


def test_a_version_is_shown_with_its_progress_or_its_gates(run: Run, rebuilds: Rebuilds) -> None:
    assert "progress.chunks_per_s" in run("versions", "show", "docs", "v2").stdout
    rebuilds.stages = [READY]
    shown = run("versions", "show", "docs", "v2").stdout
    assert "progress" not in shown
    assert "0.91" in shown


def test_a_version_as_json_has_progress_reason_and_gates(run_json: RunJson, rebuilds: Rebuilds) -> None:
    value = run_json("versions", "show", "docs", "v2")
    assert value["progress"] == asdict(PROGRESS)
    assert (value["reason"], value["gates"]) == ("", [])
    rebuilds.stages = [READY]
    value = run_json("versions", "show", "docs", "v2")
    assert (value["progress"], value["gates"]) == (None, [asdict(READY.gates[0])])


@pytest.mark.parametrize(
    ("command", "call", "said"),
    [
        (("promote", "docs", "v2"), ("promote", "docs", "v2", False, {}), "v2 serves docs"),
        (("promote", "docs", "v2", "--force"), ("promote", "docs", "v2", True, {}), "v2 serves docs"),
        (
            ("promote", "docs", "v2", "--gate", "overlap=0.5", "--gate", "p95_ratio=2"),
            ("promote", "docs", "v2", False, {"overlap": 0.5, "p95_ratio": 2}),
            "v2 serves docs",
        ),
        (("rollback", "docs"), ("rollback", "docs"), "v1 serves docs again"),
        (("pause", "docs", "v2"), ("pause", "docs", "v2"), "v2 is paused"),
        (("resume", "docs", "v2"), ("resume", "docs", "v2"), "v2 is building"),
        (("delete", "docs", "v2", "--yes"), ("delete", "docs", "v2"), "deleted v2, 5.0 MB freed"),
    ],
)
def test_each_command_makes_its_call_and_says_what_came_of_it(
    run: Run,
    run_json: RunJson,
    rebuilds: Rebuilds,
    command: tuple[str, ...],
    call: tuple[Any, ...],
    said: str,
) -> None:
    assert run("versions", *command).stdout.strip() == said
    assert isinstance(run_json("versions", *command), dict)
    assert rebuilds.calls == [call, call]


@pytest.mark.parametrize(
    ("options", "shares", "said"),
    [
        (("--canary", "5%"), (None, 0.05), "v2 gets 5% of the searches as a canary"),
        (("--shadow", "0.2"), (0.2, None), "v2 gets 20% of the searches as a shadow"),
        (
            ("--shadow", "100%", "--canary", "0.5%"),
            (1.0, 0.005),
            "v2 gets 0.5% of the searches as a canary, 100% of the searches as a shadow",
        ),
        (("--off",), (0.0, 0.0), "v2 gets no searches"),
    ],
)
def test_a_share_is_a_percentage_or_a_number(
    run: Run, rebuilds: Rebuilds, options: tuple[str, ...], shares: tuple[float | None, ...], said: str
) -> None:
    assert run("versions", "traffic", "docs", "v2", *options).stdout.strip() == said
    assert rebuilds.calls == [("traffic", "docs", "v2", *shares)]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--canary", "150%"),
        ("--canary", "1.5"),
        ("--canary=-1%",),
        ("--shadow", "5%%"),
        ("--shadow", "much"),
        ("--shadow", "nan"),
        ("--off", "--canary", "5%"),
    ],
)
def test_a_share_that_cannot_be_meant_is_a_usage_error(
    run: Run, rebuilds: Rebuilds, options: tuple[str, ...]
) -> None:
    assert run("versions", "traffic", "docs", "v2", *options).exit_code == 2
    assert rebuilds.calls == []


TRAFFIC = Traffic(
    shadow=0.2,
    canary=0.05,
    mirrored=1_200,
    skipped=3,
    dropped=4,
    failed=5,
    mean_rbo=0.91234,
    mean_overlap=0.875,
    shadow_latency=Latency(searches=500, p50_ms=1.5, p95_ms=2.5, serving_p50_ms=3.5, serving_p95_ms=4.5),
    canary_answered=60,
    canary_failed=2,
    canary_latency=Latency(searches=60, p50_ms=5.5, p95_ms=6.5),
)


def test_what_was_seen_of_a_version_is_a_table(run: Run, rebuilds: Rebuilds) -> None:
    rebuilds.stages = [replace(READY, traffic=TRAFFIC)]
    shown = run("versions", "show", "docs", "v2").stdout
    rows = {line[:20].strip(): line[20:].split() for line in shown.splitlines()}
    assert rows["share"] == ["20%", "5%"]
    assert rows["answered"] == ["1,200", "60"]
    assert rows["mean rbo"] == ["0.912"]
    assert rows["p50, p95"] == ["1.5,", "2.5", "ms", "5.5,", "6.5", "ms"]
    assert rows["serving p50, p95"] == ["3.5,", "4.5", "ms"]
    assert "stopped" not in shown
    assert "traffic." not in shown


def test_why_a_canary_was_stopped_is_shown(run: Run, rebuilds: Rebuilds) -> None:
    stopped = replace(TRAFFIC, stopped="canary_failures is 0.03", last_failure="TimeoutError: slow")
    rebuilds.stages = [replace(READY, traffic=stopped)]
    shown = run("versions", "show", "docs", "v2").stdout
    assert "the canary was stopped: canary_failures is 0.03" in shown
    assert "TimeoutError: slow" in shown


def test_traffic_as_json_has_every_field(run_json: RunJson, rebuilds: Rebuilds) -> None:
    assert run_json("versions", "show", "docs", "v2")["traffic"] is None
    rebuilds.stages = [replace(READY, traffic=TRAFFIC)]
    assert run_json("versions", "show", "docs", "v2")["traffic"] == asdict(TRAFFIC)


# -- comparisons ------------------------------------------------------------------------------


def test_a_comparison_shows_both_versions_and_which_is_better(run: Run, rebuilds: Rebuilds) -> None:
    shown = run("versions", "compare", "docs", "v1", "v2", "--live").stdout
    assert rebuilds.calls == [("compare", "docs", "v1", "v2", 0, QuerySource.RECORDED)]
    assert "overlap@10 0.800" in shown
    assert "v2 is better" in shown


def test_a_comparison_as_json_has_every_number(run_json: RunJson, rebuilds: Rebuilds) -> None:
    value = run_json("versions", "compare", "docs", "v1", "v2")
    assert value == {**asdict(COMPARISON), "better": "v2"}


def test_a_comparison_asks_the_queries_of_a_file(run: Run, rebuilds: Rebuilds, tmp_path: Path) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text('{"text": "a light"}\n\n{"_id": "b", "text": "a tower", "relevant": {"7": 1}}\n')
    assert run("versions", "compare", "docs", "v1", "v2", "--queries", str(file)).exit_code == 0
    assert rebuilds.calls == [("compare", "docs", "v1", "v2", 2, None)]


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"text": " "}', '{"text": "x", "relevant": ["7"]}'])
def test_a_line_that_is_no_query_is_named(run: Run, rebuilds: Rebuilds, tmp_path: Path, line: str) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text(f'{{"text": "a light"}}\n{line}\n')
    result = run("versions", "compare", "docs", "v1", "v2", "--queries", str(file))
    assert result.exit_code == 1
    assert "queries.jsonl:2" in result.stderr


def test_one_source_of_queries_at_a_time(run: Run, rebuilds: Rebuilds) -> None:
    assert run("versions", "compare", "docs", "v1", "v2", "--live", "--golden").exit_code == 2


def test_a_limit_that_is_none_is_wrong_usage(run: Run, rebuilds: Rebuilds) -> None:
    result = run("versions", "promote", "docs", "v2", "--gate", "overlap")
    assert result.exit_code == 2
    assert rebuilds.calls == []


def test_a_forced_promotion_is_shown_with_the_gates_that_failed(run: Run, rebuilds: Rebuilds) -> None:
    told = {"forced": True, "instead_of": "v1", "gates": [asdict(gate) for gate in READY.gates]}
    past = VersionEvent(event="serving", at=READY.created_at, detail=told)
    rebuilds.stages = [replace(READY, history=(past,))]
    shown = " ".join(run("versions", "show", "docs", "v2").stdout.split())
    assert "forced; recall was 0.91, the limit 0.98; instead of v1" in shown


@pytest.mark.parametrize(("answer", "deleted"), [("y\n", True), ("n\n", False), ("", False)])
def test_deleting_asks_first(run: Run, rebuilds: Rebuilds, answer: str, deleted: bool) -> None:
    result = run("versions", "delete", "docs", "v2", stdin=answer)
    assert (result.exit_code == 0) is deleted
    assert bool(rebuilds.calls) is deleted


def test_a_promotion_that_is_refused_tells_the_numbers(run: Run, rebuilds: Rebuilds) -> None:
    rebuilds.error = errors.FailedPrecondition("recall is 0.91, below 0.98")
    result = run("versions", "promote", "docs", "v2")
    assert result.exit_code == 1
    assert "recall is 0.91, below 0.98" in result.stderr


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (12, "12 s"), (200, "3 min 20 s"), (7_500, "2 h 05 min")]
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text
