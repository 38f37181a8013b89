"""What an index may be opened with, and what it says of the files that it finds."""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from indexes.base import Metric
from indexes.conformance import DIM, batch_of, clustered
from indexes.directory import Directory, LocalDirectory
from indexes.registry import open_dense, open_lexical
from ragstone.errors import CorruptIndex, FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from tests.indexes.dense.conftest import Open

FILES: Final = ("00000002.keys", "00000002.vectors", "00000002.index")
"""Those of an index that was compacted once, beside its manifest."""
DAMAGES: Final = [
    *((name, damage) for name in FILES for damage in ("flipped", "shortened", "missing")),
    ("MANIFEST.json", "flipped"),
    ("MANIFEST.json", "shortened"),
]


@pytest.fixture
async def written(opened: Open, tmp_path: Path) -> Path:
    """The folder of an index with one segment, which is closed."""
    index = await opened("hnsw")
    await index.apply(batch_of(clustered(50)), seq=1)
    await index.compact()
    await index.close()
    return tmp_path / "index"


# -- options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"m": 1}, "recipe.index.m"),
        ({"ef_search": "wide"}, "recipe.index.ef_search"),
        ({"recall_target": 1.0}, "recipe.index.recall_target"),
        ({"shards": 65}, "recipe.index.shards"),
        ({"nlist": 5}, "recipe.index.nlist"),
        ({"storage": "int2"}, "recipe.index.storage"),
        ({"ef_search": 64, "recall_target": 0.9}, "recipe.index"),
    ],
)
async def test_a_wrong_option_is_named(options: dict[str, object], field: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await open_dense(
            "hnsw", directory=LocalDirectory(tmp_path), dim=DIM, metric=Metric.COSINE, options=options
        )
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_unknown_kinds_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    directory = LocalDirectory(tmp_path)
    with pytest.raises(
        InvalidArgument,
        match=r"recipe\.index\.kind: 'tree' is unknown; known: auto, cagra, flat, hnsw, ivf_flat, ivf_pq",
    ):
        await open_dense("tree", directory=directory, dim=DIM, metric=Metric.COSINE, options={})
    with pytest.raises(InvalidArgument, match=r"recipe\.lexical\.kind: .* known: okapi, tantivy"):
        await open_lexical("grep", directory=directory, options={})


@pytest.mark.parametrize("field", ["vectors[1]", "queries[1]"])
async def test_a_zero_vector_has_no_cosine(opened: Open, field: str) -> None:
    index, vectors = await opened("hnsw"), clustered(2)
    vectors[1] = 0
    with pytest.raises(InvalidArgument) as caught:
        if field == "vectors[1]":
            await index.apply(batch_of(vectors), seq=1)
        else:
            await index.search(vectors, 1)
    assert caught.value.violations[0].field == field


# -- files ---------------------------------------------------------------------------------------------


async def test_only_one_may_have_the_index_open(opened: Open) -> None:
    index = await opened("hnsw")
    with pytest.raises(FailedPrecondition, match="is open"):
        await opened("hnsw")
    await index.close()
    await (await opened("hnsw")).close()


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"metric": Metric.L2}, "cosine"), ({"dim": DIM + 1}, f"dimension {DIM}"), ({"shards": 2}, "1 shards")],
    ids=["metric", "dimension", "shards"],
)
async def test_an_index_keeps_its_metric_dimension_and_shards(
    opened: Open, written: Path, changed: dict[str, Any], named: str
) -> None:
    with pytest.raises(FailedPrecondition, match=named):
        await opened("hnsw", **changed)
    assert (await opened("hnsw")).stats().live == 50


async def test_files_that_no_manifest_names_are_swept_at_open_and_strangers_stay(
    opened: Open, tmp_path: Path
) -> None:
    await (await opened("hnsw")).close()
    directory = LocalDirectory(tmp_path / "index")
    for name in ("00000077.vectors", "00000077.keys", "MANIFEST.json.tmp", "notes.txt"):
        directory.atomic_write(name, b"left behind")
    await (await opened("hnsw")).close()
    assert directory.list() == ["notes.txt"]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
async def test_a_damaged_file_is_named(opened: Open, written: Path, name: str, damage: str) -> None:
    path = written / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flipped" else data[:-1])
    with pytest.raises(CorruptIndex, match=name):
        await opened("hnsw")
    with pytest.raises(CorruptIndex, match=name):
        await opened("hnsw")


@pytest.mark.parametrize("name", FILES)
async def test_damage_that_left_no_trace_is_reported_soon_and_refused_at_the_next_open(
    opened: Open, written: Path, name: str
) -> None:
    flip_unseen(written / name)
    index = await opened("hnsw")
    await verified()
    assert index.stats().details["last_error"] == f"{name} fails its checksum"
    await index.close()
    with pytest.raises(CorruptIndex, match=name):
        await opened("hnsw")


async def test_a_merge_does_not_hide_damage(opened: Open, written: Path) -> None:
    flip_unseen(written / "00000002.vectors")
    index = await opened("hnsw")
    await verified()
    await index.apply(batch_of(clustered(5, seed=2), first=50), seq=2)
    with suppress(CorruptIndex):
        await index.compact()
    await index.close()
    with pytest.raises(CorruptIndex, match=r"00000002\.vectors"):
        await opened("hnsw")


async def test_a_healthy_index_has_nothing_to_report_and_stays_trusted(opened: Open, written: Path) -> None:
    before = {name: (written / name).stat().st_mtime_ns for name in FILES}
    index = await opened("hnsw")
    await verified()
    assert index.stats().details["last_error"] == ""
    assert before == {name: (written / name).stat().st_mtime_ns for name in FILES}


async def test_files_that_were_copied_are_read_in_full_and_then_trusted_as_they_are(
    opened: Open, written: Path
) -> None:
    for name in FILES:
        os.utime(written / name)
    index = await opened("hnsw")
    found = await index.search(clustered(50)[::7], 1)
    assert found.keys[:, 0].tolist() == list(range(0, 50, 7))


async def test_a_newer_format_is_refused_and_kept(opened: Open, tmp_path: Path) -> None:
    directory = LocalDirectory(tmp_path / "index")
    document = write_format(directory, 3)
    with pytest.raises(FailedPrecondition, match="format 3"):
        await opened("hnsw")
    assert directory.read("MANIFEST.json") == document


async def test_an_older_format_counts_as_damage_so_that_it_is_built_again(
    opened: Open, tmp_path: Path
) -> None:
    write_format(LocalDirectory(tmp_path / "index"), 1)
    with pytest.raises(CorruptIndex, match="format 1, older than 2"):
        await opened("hnsw")


def write_format(directory: Directory, number: int) -> bytes:
    """A sound manifest of another format; its bytes."""
    body = {"format": number, "news": True}
    checksum = zlib.crc32(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())
    document = json.dumps({"crc32": checksum, "manifest": body}).encode()
    directory.atomic_write("MANIFEST.json", document)
    return document


def flip_unseen(path: Path) -> None:
    """Change the last byte of a file as a failing disk does: its times say nothing of it."""
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


async def verified() -> None:
    """Wait until all that was trusted at open has been read."""
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "index verification"))
