"""Many segments become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from indexes.dense.rows import Rows
from indexes.dense.segments import PlainKind, Shape, Source, live_rows, write_built, write_plain
from indexes.dense.structures import Builder
from indexes.dense.tuning import FEW_ROWS
from indexes.dense.view import Part

_OUTGROWN: Final = 2


def merge_parts(
    shape: Shape,
    name: str,
    inputs: Sequence[Part],
    form: Builder | PlainKind,
    cancelled: Callable[[], bool],
    *,
    dead_share: float,
    why: str = "",
) -> Part | None:
    """A part of the given form with the live rows of ``inputs``, of one shard; None when there are none.

    Keys grow with time, so the largest structure often comes before all else: then it is copied and only
    the other rows are added, which costs a fraction. Its dead rows stay in it, dead; with more of them than
    ``dead_share`` it is built anew.
    """
    inputs = sorted(inputs, key=lambda part: int(part.segment.keys[0]))
    base = None if isinstance(form, str) else _base(inputs, form, dead_share)
    taken = [
        np.arange(len(part.segment.keys)) if part is base else live_rows(part.segment, part.alive)
        for part in inputs
    ]
    source = _source(inputs, taken)
    if not len(source.keys):
        return None
    shard = inputs[0].segment.entry.shard
    if isinstance(form, str):
        return Part(write_plain(shape, name, source, shard=shard, kind=form, why=why))
    entry = None if base is None else base.segment.entry
    segment = write_built(shape, name, source, form, shard=shard, base=entry, why=why, cancelled=cancelled)
    if base is None or base.alive is None:
        return Part(segment)
    alive = np.ones(len(source.keys), dtype=np.bool_)
    alive[: len(base.alive)] = base.alive
    return Part(segment, alive)


def _source(inputs: Sequence[Part], taken: Sequence[Rows]) -> Source:
    chosen = [(part.segment, rows) for part, rows in zip(inputs, taken, strict=True)]
    return Source(
        keys=np.concatenate([segment.keys[rows] for segment, rows in chosen]),
        sources=[(segment.vectors, rows) for segment, rows in chosen],
    )


def _base(inputs: Sequence[Part], builder: Builder, dead_share: float) -> Part | None:
    """The first part, if the others' rows can be added behind its own."""
    first, *others = inputs
    entry = first.segment.entry
    if (
        not others
        or not builder.most_added
        or (entry.kind, entry.shape) != (builder.kind, dict(builder.shape))
    ):
        return None
    last_key = first.segment.keys[-1]
    in_order = all(part.segment.keys[0] > last_key for part in others)
    inserted = sum(part.live for part in others)
    worth = inserted <= builder.most_added * first.live and first.dead <= dead_share * len(first.segment.keys)
    # So few rows would leave the tuning as it is; that must not go on until the graph is another one.
    outgrown = inserted < FEW_ROWS and _OUTGROWN * entry.measured_rows < entry.rows + inserted
    return first if in_order and worth and not outgrown else None
