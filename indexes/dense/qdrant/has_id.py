"""Filters by many ids as protobuf's bytes, made at once: an object for each id takes 20 times as long."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap64
from qdrant_client import grpc as wire

from indexes.dense.qdrant.points import Among

_HAS_ID: Final = 0x0A
"""``HasIdCondition.has_id``, field 1, a message."""
_NUM: Final = 0x08
"""``PointId.num``, field 1, a varint."""
_VARINT_BYTES: Final = 9
"""That a number below 2**63 takes at most."""


def filter_of(among: Among) -> wire.Filter | None:
    """The filter, None for all points."""
    if among.ids is None:
        return None
    condition = wire.Condition(has_id=wire.HasIdCondition.FromString(encoded(among.ids)))
    return wire.Filter(must_not=[condition]) if among.all_but else wire.Filter(must=[condition])


def encoded(ids: BitMap64) -> bytes:
    """A ``HasIdCondition`` of ids below 2**63."""
    varints, lengths = _varints(np.asarray(ids.to_array(), dtype=np.uint64))
    rows = np.empty((len(ids), 3 + _VARINT_BYTES), np.uint8)
    rows[:, 0], rows[:, 1], rows[:, 2] = _HAS_ID, 1 + lengths, _NUM
    rows[:, 3:] = varints
    return rows[np.arange(rows.shape[1]) < 3 + lengths[:, None]].tobytes()


def _varints(numbers: NDArray[np.uint64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Seven bits a byte, the lowest first, all but the last with the high bit: ``(n, 9)``; and how many."""
    shifts = np.arange(0, 7 * _VARINT_BYTES, 7, dtype=np.uint64)
    septets = ((numbers[:, None] >> shifts) & np.uint64(0x7F)).astype(np.uint8)
    lengths = np.maximum(1, _VARINT_BYTES - np.argmax(septets[:, ::-1] != 0, axis=1))
    lengths[numbers == 0] = 1
    septets[np.arange(_VARINT_BYTES) < lengths[:, None] - 1] |= 0x80
    return septets, lengths
