"""Many segments become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from indexes.dense.options import HnswOptions
from indexes.dense.segments import Rows, Shape, live_rows, write_flat, write_hnsw
from indexes.dense.view import Part

_MOST_TO_INSERT: Final = 4
"""A graph is worth extending by at most this many times its own rows."""


def merge_parts(
    shape: Shape,
    name: str,
    inputs: Sequence[Part],
    options: HnswOptions | None,
    cancelled: Callable[[], bool],
    *,
    dead_share: float,
) -> Part | None:
    """A part with the live rows of ``inputs``, or None when there are none; without ``options``, no graph.

    Keys grow with time, so the largest graph often comes before all else: then it is copied and only the
    other rows are inserted, which costs a fraction. Its dead rows stay in it, dead; with more of them than
    ``dead_share`` it is built anew.
    """
    inputs = sorted(inputs, key=lambda part: int(part.segment.keys[0]))
    base = _base(inputs, options, dead_share)
    taken = [
        np.arange(len(part.segment.keys)) if part is base else live_rows(part.segment, part.alive)
        for part in inputs
    ]
    keys = np.concatenate([part.segment.keys[rows] for part, rows in zip(inputs, taken, strict=True)])
    if not len(keys):
        return None
    rows = Rows(
        keys=keys, sources=[(part.segment.vectors, rows) for part, rows in zip(inputs, taken, strict=True)]
    )
    if options is None:
        return Part(write_flat(shape, name, rows))
    graph = None if base is None else base.segment.graph
    segment = write_hnsw(shape, name, rows, options, base=graph, cancelled=cancelled)
    if base is None or base.alive is None:
        return Part(segment)
    alive = np.ones(len(keys), dtype=np.bool_)
    alive[: len(base.alive)] = base.alive
    return Part(segment, alive)


def _base(inputs: Sequence[Part], options: HnswOptions | None, dead_share: float) -> Part | None:
    """The first part, if the others' rows can be added behind its own."""
    first = inputs[0]
    if (
        options is None
        or first.segment.graph is None
        or first.segment.entry.m != options.m
        or len(inputs) < 2
    ):
        return None
    last_key = first.segment.keys[-1]
    in_order = all(part.segment.keys[0] > last_key for part in inputs[1:])
    inserted = sum(part.live for part in inputs[1:])
    worth = inserted <= _MOST_TO_INSERT * first.live and first.dead <= dead_share * len(first.segment.keys)
    return first if in_order and worth else None
