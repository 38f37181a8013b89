"""``ragstone capacity``, as people and scripts run it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from retrieval.cli.app import app
from retrieval.cli.rates import PUBLISHED


def capacity(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["capacity", *arguments], env={"COLUMNS": "160"})


def capacity_json(*arguments: str) -> Any:
    result = capacity(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def lines(of: Any) -> dict[str, float]:
    return {f"{line['section']}: {line['name']}": line["value"] for line in of["lines"]}


def test_every_line_says_what_it_rests_on() -> None:
    found = capacity_json("--documents", "1000", "--qps", "5", "--writes", "1", "--price-server", "9")
    assert {line["basis"] for line in found["lines"]} == {"arithmetic", "published"}


def test_documents_are_cut_into_chunks() -> None:
    found = capacity_json("--documents", "1000", "--document-tokens", "1000")
    assert (found["corpus"]["documents"], found["corpus"]["chunks"]) == (1_000, 11_000)


def test_people_get_a_table_with_units() -> None:
    shown = capacity("--chunks", "1000000", "--index", "ivf_pq", "--no-tokens").stdout
    assert "1,000,000 chunks of 128 tokens, 384 dimensions, ivf_pq" in shown
    assert "GiB" in shown
    assert "note: rates are of benchmarks/results" in shown


def test_without_a_size_it_says_what_to_give() -> None:
    result = capacity()
    assert result.exit_code == 1
    assert "--documents" in result.stderr


def test_rates_of_ones_own_hardware_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    rates = PUBLISHED.model_dump(mode="json") | {"source": "ours", "basis": "measured", "loop_ms": 100}
    file.write_text(json.dumps({"rates": rates}))
    found = capacity_json("--chunks", "1000", "--qps", "50", "--measured", str(file))
    assert found["rates"]["source"] == "ours"
    assert lines(found)["machines: servers"] == 10


def test_a_wrong_file_of_rates_is_named_with_its_field(tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    file.write_text('{"source": "ours", "embed_tokens_s_core": -1}')
    result = capacity("--chunks", "1000", "--measured", str(file))
    assert result.exit_code == 1
    assert "measured.embed_tokens_s_core" in result.stderr


def test_rates_are_measured_or_read_but_not_both(tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    file.write_text("{}")
    assert capacity("--chunks", "1", "--measure", "--measured", str(file)).exit_code == 2


@pytest.mark.parametrize("number", [0, 1])
def test_the_guide_shows_what_the_calculator_prints(number: int) -> None:
    text = (Path(__file__).parents[2] / "docs/scale.md").read_text().replace("\\\n", " ")
    command, shown = re.findall(
        r"^    \$ ragstone capacity (--documents.*)\n((?:    .*\n)+)", text, re.MULTILINE
    )[number]
    printed = CliRunner().invoke(app, ["capacity", *command.split()], env={"COLUMNS": "118"}).stdout
    lines = [line.rstrip() for line in printed.splitlines()]
    wanted = [line[4:].rstrip() for line in shown.splitlines()]
    assert wanted == lines[lines.index(wanted[0]) :]


@pytest.mark.e2e
@pytest.mark.slow
def test_this_machine_is_measured_by_a_real_model_index_and_server() -> None:
    found = capacity_json("--chunks", "100000", "--index", "ivf_pq", "--measure", "--measure-rows", "1000")
    assert found["rates"]["basis"] == "measured"
    assert found["rates"]["indexes"]["ivf_pq"]["rows"] == 1_000
    assert lines(found)["disk of one chunk: dense index, built"] > 4 * 384
