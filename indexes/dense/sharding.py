"""Which shard a key belongs to."""

from __future__ import annotations

from typing import Final

import numpy as np

from indexes.base import Keys

_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)


def shard_of(keys: Keys, shards: int) -> Keys:
    """A shard, 0 to ``shards - 1``, for each of ``keys`` ``(n,)``: a hash, so that neighbours spread evenly.

    The finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    """
    mixed = keys.astype(np.uint64) + _GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    mixed ^= mixed >> np.uint64(31)
    return (mixed % np.uint64(shards)).astype(np.int64)
