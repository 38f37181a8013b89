"""Opening a local dense index: from its manifest, or from nothing."""

from __future__ import annotations

from collections.abc import Mapping

from indexes.base import Metric
from indexes.dense.kinds import open_kind
from indexes.dense.manifest import decode_dead, read_manifest
from indexes.dense.segmented import SegmentedIndex
from indexes.dense.segments import Shape, open_segment, sweep
from indexes.dense.threads import Threads
from indexes.dense.upkeep import UpkeepLimits
from indexes.dense.view import Delta, Part, View
from indexes.directory import Directory
from ragstone.errors import FailedPrecondition


async def open_index(
    kind: str,
    *,
    directory: Directory,
    dim: int,
    metric: Metric,
    options: Mapping[str, object],
    limits: UpkeepLimits | None = None,
) -> SegmentedIndex:
    """Open or make a local index; ``kind`` and ``options`` are those of ``kinds.open_kind``.

    Raises InvalidArgument for wrong options, FailedPrecondition when another has it open or it was made for
    another dimension, metric or number of shards, CorruptIndex naming a damaged file, OutOfMemory when it
    does not fit on the GPU that the options insist on.
    """
    chosen = open_kind(kind, options)
    lock = directory.lock()
    shape = Shape(directory=directory, dim=dim, metric=metric, device=chosen.device)
    threads = Threads(shards=chosen.options.shards)
    try:
        view = await threads.write(_load, shape, chosen.options.shards)
    except BaseException:
        await threads.close()
        shape.device.close()
        lock.release()
        raise
    limits = limits or UpkeepLimits(freeze_at=chosen.options.freeze_at)
    return SegmentedIndex(shape, view, lock=lock, threads=threads, kind=chosen, limits=limits)


def _load(shape: Shape, shards: int) -> View:
    manifest = read_manifest(shape.directory)
    if manifest is None:
        sweep(shape.directory, ())
        return View(parts=(), delta=Delta.empty(shape.dim), applied_seq=0)
    made_for = (manifest.dim, manifest.metric, manifest.shards)
    if made_for != (shape.dim, shape.metric, shards):
        raise FailedPrecondition(
            f"the index was made for dimension {manifest.dim}, {manifest.metric}, {manifest.shards} shards, "
            f"not for dimension {shape.dim}, {shape.metric}, {shards} shards"
        )
    sweep(shape.directory, manifest.segments)
    parts = []
    for entry in manifest.segments:
        dead = manifest.dead.get(entry.name)
        alive = None if dead is None else decode_dead(dead, entry.rows)
        parts.append(Part(open_segment(shape, entry), alive))
    return View(parts=tuple(parts), delta=Delta.empty(shape.dim), applied_seq=manifest.applied_seq)
