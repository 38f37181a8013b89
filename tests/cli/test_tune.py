"""``ragstone tune``, on a small judged collection of a real server."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from string import ascii_lowercase
from typing import Any, Final

import pytest
from typer.testing import Result

from ragstone import Client
from ragstone.types import Mode, Query, Rerank
from retrieval.cli import beir, tuning
from retrieval.cli.tuning import Reranking, Setting, candidates_of
from retrieval.versions.recipe import FusionSpec

Run = Callable[..., Result]
RunJson = Callable[..., Any]

pytestmark = pytest.mark.e2e

DOCUMENTS: Final = 80
COMMON: Final = "the lamp of a tower was lit at dusk and ships came in from far out by night".split()
RECIPE: Final = """
[embedder]
kind = "hashing"
dim = 256
[index]
kind = "flat"
[tokens]
kind = "lmdb"
[reranker]
kind = "late_interaction"
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A question misspells a document's own word among common ones: only the dense leg makes it out."""
    folder = tmp_path_factory.mktemp("judged")
    (folder / "qrels").mkdir()
    random = Random(3)
    own = ["".join(random.choices(ascii_lowercase, k=12)) for _ in range(DOCUMENTS)]

    def among_common(word: str, n: int) -> str:
        return " ".join([*random.choices(COMMON, k=n), word, *random.choices(COMMON, k=n)])

    corpus = [{"_id": f"d{n:02}", "text": among_common(word, 10)} for n, word in enumerate(own)]
    queries = [
        {"_id": f"q{n}", "text": among_common(f"{word[:6]}x{word[6:]}", 3)} for n, word in enumerate(own)
    ]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q{n}\td{n:02}\t1\n" for n in range(DOCUMENTS))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return folder


@pytest.fixture
def judged(run: Run, dataset: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A collection of the dataset's documents that is reranked by late interaction."""
    recipe = tmp_path / "made-with.toml"
    recipe.write_text(RECIPE)
    name = f"t{abs(hash(request.node.nodeid)):x}"
    assert run("collections", "create", name, "--recipe", str(recipe)).exit_code == 0
    assert run("ingest", name, str(dataset / "corpus.jsonl")).exit_code == 0
    yield name
    run("collections", "delete", name)


def test_what_pays_is_chosen_measured_on_the_other_half_and_written_as_a_recipe(
    run: Run, run_json: RunJson, judged: str, dataset: Path, tmp_path: Path
) -> None:
    written = tmp_path / "tuned.toml"
    report = run_json("tune", judged, "--dataset", str(dataset), "--output", str(written))
    assert report["train"]["queries"] + report["test"]["queries"] == DOCUMENTS
    assert {step["part"] for step in report["train"]["steps"]} == {"fusion", "depth", "reranker"}
    default, as_it_is, chosen = report["test"]["measured"]
    assert as_it_is["setting"]["rerank"] is not None
    assert chosen["ndcg@10"] >= default["ndcg@10"]
    assert chosen["gain"]["low"] > 0
    assert tomllib.loads(written.read_text()) == report["recipe"]
    assert report["recipe"]["fusion"] == chosen["setting"]["fusion"]
    # Both commands take it.
    plan = run_json("rebuild", judged, "--recipe", str(written), "--dry-run")
    assert plan["recipe"]["fusion"] == report["recipe"]["fusion"]
    created = run_json("collections", "create", "from-tuning", "--recipe", str(written))
    assert created["serving"]["recipe"] == report["recipe"]
    assert run("collections", "delete", "from-tuning").exit_code == 0


def test_people_see_what_paid_and_what_did_not(run: Run, judged: str, dataset: Path) -> None:
    # Another version takes part, and cannot be better: no document has a title.
    assert run("rebuild", judged, "--set", "lexical.title_boost=2", "--watch").exit_code == 0
    result = run("tune", judged, "--dataset", str(dataset))
    assert result.exit_code == 0, result.stderr
    for told in ("v2", "chosen", "does not pay", "default hybrid", "It took", "[fusion]"):
        assert told in result.stdout


def test_a_collection_of_few_judged_queries_is_refused(
    run: Run, judged: str, dataset: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    (few / "qrels").mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl"):
        (few / name).write_text((dataset / name).read_text())
    lines = (dataset / "qrels" / "test.tsv").read_text().splitlines(keepends=True)
    (few / "qrels" / "test.tsv").write_text("".join(lines[:5]))
    result = run("tune", judged, "--dataset", str(few))
    assert result.exit_code == 1
    assert "each half needs at least 5" in result.stderr


SETTINGS: Final = [
    Setting(version="v1"),
    Setting(version="v1", fusion=FusionSpec(kind="rrf", k=10, dense_weight=0.3, lexical_weight=0.7)),
    Setting(version="v1", fusion=FusionSpec(dense_weight=0.8, lexical_weight=0.2, depth=50)),
    Setting(version="v1", rerank=Reranking(depth=20, weight=0.6)),
    Setting(version="v1", fusion=FusionSpec(depth=200), rerank=Reranking(depth=50, weight=1.0)),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=Setting.told)
def test_a_setting_finds_offline_what_the_server_finds_with_it(
    address: str, judged: str, dataset: Path, setting: Setting
) -> None:
    ask = Query(k=200, depth=200, explain=True, rerank=Rerank(depth=200))
    with Client(address) as client:
        for line in list(beir.load(dataset).queries.values())[:10]:
            legs = [replace(ask, text=line["text"], mode=mode) for mode in (Mode.DENSE, Mode.LEXICAL)]
            seen = candidates_of(*client.batch_search(judged, legs))
            [found] = client.batch_search(judged, [replace(setting.query(), text=line["text"])])
            offline = seen.ranked(seen.fused(setting.fusion), setting.rerank)
            assert offline == beir.best_documents(found.hits, tuning.TOP)
