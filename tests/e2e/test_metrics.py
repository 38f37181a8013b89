"""A real server's metrics, read as Prometheus reads them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ragstone import Client, Document
from ragstone.errors import NotFound
from retrieval import telemetry

if TYPE_CHECKING:
    from tests.conftest import MakeServer, RealServer

pytestmark = pytest.mark.e2e

HASHING = '[recipe.embedder]\nkind = "hashing"\n'
Samples: TypeAlias = dict[tuple[str, frozenset[tuple[str, str]]], float]


def metrics_address(server: RealServer) -> str | None:
    """Where the log says that the metrics are."""
    events = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    return next((event["address"] for event in events if event["event"] == "metrics_served"), None)


def scrape(address: str) -> Samples:
    with urlopen(f"http://{address}/metrics", timeout=10) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


def test_what_prometheus_reads(make_server: MakeServer) -> None:
    server = make_server(config=f'metrics_listen = "127.0.0.1:0"\n{HASHING}')
    server.start()
    address = metrics_address(server)
    assert address
    recall = {"collection": "docs", "version": "v1", "leg": "dense"}
    with Client(server.address) as client:
        client.create_collection("docs")
        client.upsert("docs", [Document(id=str(i), text=f"passage {i} about the sea") for i in range(20)])
        for _ in range(3):
            client.search("docs", "the sea")
        with pytest.raises(NotFound):
            client.search("nothing", "the sea")
        give_up = time.monotonic() + 10
        while not value(samples := scrape(address), telemetry.INDEX_RECALL_SAMPLES, **recall):
            assert time.monotonic() < give_up, "no recall was measured"
            time.sleep(0.05)
    assert value(samples, telemetry.REQUESTS, method="Search", code="OK") == 3
    assert value(samples, telemetry.REQUESTS, method="Search", code="NOT_FOUND") == 1
    assert value(samples, f"{telemetry.REQUEST_DURATION}_count", method="Search") == 4
    assert value(samples, f"{telemetry.SEARCH_STAGE_DURATION}_count", stage="hydrate") == 3
    assert value(samples, telemetry.REQUESTS_IN_FLIGHT) == 0
    assert value(samples, telemetry.INDEX_RECALL, **recall) == 1.0
    assert value(samples, telemetry.INDEX_LIVE, **recall) == 20
    assert value(samples, "process_resident_memory_bytes")
    assert server.stop() == 0
    with pytest.raises(OSError, match="refused"):
        scrape(address)


def test_a_server_that_was_not_asked_serves_none(server: RealServer) -> None:
    assert metrics_address(server) is None


def test_a_taken_port_is_told_before_anything_opens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        options = [
            "--data-dir",
            str(tmp_path / "data"),
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            address,
        ]
        command = [sys.executable, "-m", "retrieval.cli.app", "serve", *options]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert f"FAILED_PRECONDITION: cannot serve metrics on {address}" in ended.stderr
    assert not (tmp_path / "data").exists()


def test_an_address_without_a_port_is_refused(tmp_path: Path) -> None:
    options = ["--data-dir", str(tmp_path / "data"), "--metrics-listen", "localhost"]
    command = [sys.executable, "-m", "retrieval.cli.app", "serve", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "settings.metrics_listen" in ended.stderr
