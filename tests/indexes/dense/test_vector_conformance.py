"""Every local dense index passes every check, in every metric, small and freezing all the time."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexes.base import Metric, VectorIndex
from indexes.conformance import DIM, VECTOR_INDEX_CHECKS, Check, Subject
from indexes.directory import LocalDirectory
from indexes.registry import open_dense

OPTIONS: dict[str, tuple[str, dict[str, object], float]] = {
    "flat": ("flat", {}, 1.0),
    "flat-freezing": ("flat", {"freeze_at": 32}, 1.0),
    "hnsw": ("hnsw", {}, 0.95),
    "hnsw-freezing": ("hnsw", {"freeze_at": 32, "m": 16, "ef_construction": 64}, 0.95),
    "hnsw-float32": ("hnsw", {"freeze_at": 256, "storage": "float32"}, 0.95),
    "hnsw-fp16": ("hnsw", {"freeze_at": 256, "storage": "fp16"}, 0.95),
    "ivf-flat": ("ivf_flat", {"freeze_at": 256}, 0.95),
    "ivf-pq": ("ivf_pq", {"freeze_at": 256}, 0.95),
    "ivf-pq-freezing": ("ivf_pq", {"freeze_at": 32}, 0.95),
    "cagra": ("cagra", {"freeze_at": 256}, 0.95),
    "auto": ("auto", {"freeze_at": 256}, 0.95),
    "flat-sharded": ("flat", {"freeze_at": 32, "shards": 3}, 1.0),
    "hnsw-sharded": ("hnsw", {"freeze_at": 256, "shards": 2}, 0.95),
    "ivf-pq-sharded": ("ivf_pq", {"freeze_at": 256, "shards": 4}, 0.95),
}


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("check", VECTOR_INDEX_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", OPTIONS)
async def test_a_local_index_conforms(name: str, check: Check, metric: Metric, tmp_path: Path) -> None:
    kind, options, recall = OPTIONS[name]

    async def opened() -> VectorIndex:
        return await open_dense(
            kind, directory=LocalDirectory(tmp_path), dim=DIM, metric=metric, options=options
        )

    await check(Subject(open=opened, metric=metric, recall=recall))
