"""Qdrant passes every check of a dense index: the local mode, the embedded engine, a server if there is one.

The server is the one that the environment variable QDRANT_URL names, with gRPC on port 6334.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

import pytest

from indexes.base import Metric, VectorIndex
from indexes.conformance import DIM, VECTOR_INDEX_CHECKS, Check, Subject
from indexes.directory import LocalDirectory
from indexes.registry import drop_shared, open_dense
from tests.qdrant_server import QdrantServer

URL: Final = os.environ.get("QDRANT_URL")
EMBEDDED: Final[Mapping[str, tuple[dict[str, object], float]]] = {
    "scanning": ({}, 1.0),
    "building": ({"graph_at": 200, "batch": 64}, 0.95),
    "building-over-bytes": ({"graph_at": 200, "quantization": "scalar"}, 0.95),
}
SERVED: Final[Mapping[str, tuple[dict[str, object], float]]] = {
    "graph": ({}, 0.95),
    "small-batches": ({"batch": 7}, 0.95),
    "scalar": ({"quantization": "scalar"}, 0.95),
    "sharded": ({"shard_number": 2}, 0.95),
}


def subject(
    kind: str, folder: Path, metric: Metric, options: Mapping[str, object], recall: float, name: str = "test"
) -> Subject:
    async def opened() -> VectorIndex:
        return await open_dense(
            kind, directory=LocalDirectory(folder), name=name, dim=DIM, metric=metric, options=options
        )

    return Subject(open=opened, metric=metric, recall=recall)


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("check", VECTOR_INDEX_CHECKS, ids=lambda check: check.__name__)
async def test_the_local_mode_conforms(check: Check, metric: Metric, tmp_path: Path) -> None:
    await check(subject("qdrant", tmp_path, metric, {"path": str(tmp_path / "store")}, 1.0))


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("check", VECTOR_INDEX_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("how", EMBEDDED)
async def test_the_embedded_engine_conforms(how: str, check: Check, metric: Metric, tmp_path: Path) -> None:
    options, recall = EMBEDDED[how]
    await check(subject("qdrant_edge", tmp_path, metric, options, recall))


@pytest.mark.parametrize("metric", [Metric.L2, Metric.INNER_PRODUCT])
@pytest.mark.parametrize("check", VECTOR_INDEX_CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms_over_the_wire(check: Check, metric: Metric, tmp_path: Path) -> None:
    server = QdrantServer()
    await server.start()
    try:
        options = {"url": "http://127.0.0.1", "grpc_port": server.port}
        await check(subject("qdrant", tmp_path, metric, options, 1.0))
    finally:
        await server.stop()


@pytest.mark.skipif(URL is None, reason="QDRANT_URL names no server")
@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("check", VECTOR_INDEX_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("how", SERVED)
async def test_a_server_conforms(how: str, check: Check, metric: Metric, tmp_path: Path) -> None:
    options, recall = SERVED[how]
    name, options = f"ragstone_test_{uuid4().hex[:12]}", {"url": URL, **options}
    try:
        await check(subject("qdrant", tmp_path, metric, options, recall, name))
    finally:
        await drop_shared("qdrant", name=name, options=options)
