"""Makes the golden indexes of the manifest's format: ``python -m tests.indexes.dense.golden.make``.

They stand for what older programs left on disks, so those of a format are made once and never again.
``expected.json`` has what they are opened with, what they hold, and the true neighbours of some queries.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from indexes.base import Metric, SearchParams
from indexes.conformance import DIM, batch_of, clustered, removal_of
from indexes.dense.manifest import FORMAT
from indexes.dense.opening import open_index
from indexes.dense.segmented import SegmentedIndex
from indexes.dense.upkeep import UpkeepLimits
from indexes.directory import LocalDirectory

FOLDER: Final = Path(__file__).parent / f"format_{FORMAT}"
BY_HAND: Final = UpkeepLimits(freeze_at=10**9, idle_s=10**6)
FIRST_KEY: Final = 1_000
VECTORS: Final = clustered(200)
QUERIES: Final = clustered(5, seed=1).round(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """One index: what it is opened with, and how many of its last rows came after it was compacted."""

    kind: str
    metric: Metric = Metric.COSINE
    options: dict[str, object] = field(default_factory=dict)
    late: int = 0
    deleted: tuple[int, ...] = ()


INDEXES: Final = {
    "flat": Golden(kind="flat", metric=Metric.L2),
    "hnsw": Golden(kind="hnsw", options={"m": 8}),
    "hnsw-float32": Golden(kind="hnsw", metric=Metric.L2, options={"m": 8, "storage": "float32"}),
    "hnsw-tombstones": Golden(
        kind="hnsw", options={"m": 8}, late=40, deleted=tuple(range(FIRST_KEY, FIRST_KEY + 170, 7))
    ),
    "ivf-flat": Golden(kind="ivf_flat", metric=Metric.INNER_PRODUCT),
    "ivf-pq-sharded": Golden(kind="ivf_pq", options={"shards": 2}),
}


async def make(name: str, golden: Golden) -> dict[str, Any]:
    """Write one index; what must be found in it."""
    folder = FOLDER / name
    index = await open_index(
        golden.kind,
        directory=LocalDirectory(folder),
        dim=DIM,
        metric=golden.metric,
        options=golden.options,
        limits=BY_HAND,
    )
    early = len(VECTORS) - golden.late
    await index.apply(batch_of(VECTORS[:early], first=FIRST_KEY), seq=7)
    await index.compact()
    if golden.late:
        await index.apply(batch_of(VECTORS[early:], first=FIRST_KEY + early), seq=8)
        await index.apply(removal_of(*golden.deleted), seq=9)
        await index.checkpoint()
    expected = await describe(index)
    await index.close()
    (folder / "LOCK").unlink()
    return {"kind": golden.kind, "metric": golden.metric, "options": golden.options, **expected}


async def describe(index: SegmentedIndex) -> dict[str, Any]:
    """The state of an index as the test compares it."""
    found = await index.search(QUERIES, 10, params=SearchParams(exact=True))
    stats = index.stats()
    return {
        "applied_seq": index.applied_seq,
        "live": stats.live,
        "deleted": stats.deleted,
        "segments": sorted(segment["kind"] for segment in stats.details["segments"]),
        "neighbours": found.keys.tolist(),
    }


async def main() -> None:
    """Write all of them. Raises FileExistsError where the format has its own already."""
    FOLDER.mkdir()
    expected = {
        "dim": DIM,
        "queries": np.float64(QUERIES).round(3).tolist(),
        "indexes": {name: await make(name, golden) for name, golden in INDEXES.items()},
    }
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
