"""The kind ``auto``: each segment gets the form that its size and the machine's memory call for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pytest

from indexes.conformance import batch_of, clustered
from indexes.dense import opening
from indexes.dense.kinds import Auto, Kind, open_kind
from indexes.dense.options import ApproximateOptions

if TYPE_CHECKING:
    from indexes.dense.segmented import SegmentedIndex
    from tests.indexes.dense.conftest import Open

DIM: Final = 1_024
"""So wide that some hundred rows are worth a graph."""
VECTORS: Final = clustered(1_600, dim=DIM)


def forms(index: SegmentedIndex) -> list[tuple[str, str]]:
    """The kind of each segment, and why."""
    segments: list[dict[str, Any]] = index.stats().details["segments"]
    return [(segment["kind"], segment["why"]) for segment in segments]


async def test_a_small_collection_is_flat(opened: Open) -> None:
    index = await opened("auto", dim=DIM)
    await index.apply(batch_of(VECTORS[:300]), seq=1)
    await index.compact()
    assert forms(index) == [("flat", "300 rows are scanned as fast as anything finds them")]
    found = await index.search(VECTORS[:300:50], 1)
    assert found.keys[:, 0].tolist() == list(range(0, 300, 50))


async def test_a_middle_one_is_a_graph(opened: Open) -> None:
    index = await opened("auto", dim=DIM)
    await index.apply(batch_of(VECTORS[:1_000]), seq=1)
    await index.compact()
    assert forms(index) == [("hnsw", "a graph of 1 MiB fits into memory")]


async def test_with_little_memory_it_is_product_codes(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "open_kind", poor(2 * 2**20))
    index = await opened("auto", dim=DIM)
    await index.apply(batch_of(VECTORS[:1_000]), seq=1)
    await index.compact()
    assert forms(index) == [("ivf_pq", "a graph would need 1 MiB of the machine's 2")]
    found = await index.search(VECTORS[:1_000:50], 1)
    assert found.keys[:, 0].tolist() == list(range(0, 1_000, 50))


def poor(memory_bytes: int) -> Any:
    """``open_kind`` on a machine with so much memory."""

    def opened(kind: str, options: dict[str, object]) -> Kind:
        auto = open_kind(kind, options)
        assert isinstance(auto, Auto)
        return replace(auto, memory_bytes=memory_bytes)

    return opened


async def test_an_index_grows_from_flat_to_a_graph_by_merging(opened: Open) -> None:
    index = await opened("auto", dim=DIM)
    kinds = []
    for seq, first in enumerate(range(0, 1_600, 400), start=1):
        await index.apply(batch_of(VECTORS[first : first + 400], first=first), seq=seq)
        await index.compact()
        kinds += [kind for kind, _ in forms(index)]
        found = await index.search(VECTORS[: first + 400 : 90], 1)
        assert found.keys[:, 0].tolist() == list(range(0, first + 400, 90))
    assert kinds == ["flat", "hnsw", "hnsw", "hnsw"]


async def test_an_index_that_shrinks_becomes_flat_again(opened: Open) -> None:
    index = await opened("auto", dim=DIM)
    await index.apply(batch_of(VECTORS[:1_000]), seq=1)
    await index.compact()
    await index.apply(batch_of(VECTORS[:0], deleted=np.arange(500)), seq=2)
    await index.compact()
    assert [kind for kind, _ in forms(index)] == ["flat"]


@pytest.mark.parametrize(
    ("rows", "dim", "kind"),
    [(2_000, 384, "flat"), (100_000, 384, "hnsw"), (5_000_000, 384, "hnsw"), (20_000_000, 384, "ivf_pq")],
)
def test_the_form_of_real_sizes_on_16_gib(rows: int, dim: int, kind: str) -> None:
    auto = Auto(ApproximateOptions(), memory_bytes=16 * 2**30)
    form, why = auto.form(rows, dim)
    assert kind == (form if isinstance(form, str) else form.kind)
    assert why


def test_what_auto_builds_has_the_options_that_auto_was_given() -> None:
    auto = Auto(ApproximateOptions(recall_target=0.9, shards=3), memory_bytes=2**40)
    fixed = open_kind("hnsw", {"recall_target": 0.9, "shards": 3})
    (form, _), (expected, _) = auto.form(100_000, 384), fixed.form(100_000, 384)
    assert form != "flat"
    assert expected != "flat"
    assert vars(form) == vars(expected)
