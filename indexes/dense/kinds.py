"""The kinds of segments: who builds them, and how one that was read back is searched."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from indexes.dense.faiss_hnsw import HnswBuilder, HnswStructure
from indexes.dense.faiss_ivf import IvfBuilder, IvfStructure
from indexes.dense.options import ApproximateOptions, FlatOptions, HnswOptions, IvfOptions, parse_options
from indexes.dense.structures import Builder, Structure

STRUCTURES: Final[Mapping[str, Callable[[Any], Structure]]] = {
    "hnsw": HnswStructure,
    "ivf_flat": IvfStructure,
    "ivf_pq": IvfStructure,
}
"""Segment kind -> its structure around a ``faiss.Index``."""

Form = Builder | Literal["flat"]


class Kind(Protocol):
    """What an index makes of its segments."""

    @property
    def options(self) -> FlatOptions:
        """The options that all kinds share."""
        ...

    def form(self, rows: int, dim: int) -> tuple[Form, str]:
        """The form of a segment of so many rows, and why it is this one."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same form for all segments."""

    options: FlatOptions
    always: Form

    def form(self, rows: int, dim: int) -> tuple[Form, str]:
        """What the recipe says."""
        return self.always, "the recipe says so"


@dataclass(frozen=True, slots=True)
class Auto:
    """Flat for small segments, product codes where memory is short, graphs for all between."""

    options: ApproximateOptions
    memory_bytes: int | None = None
    """What the machine has, where it is not to be asked."""

    def form(self, rows: int, dim: int) -> tuple[Form, str]:
        """By the cost of a scan, and by the memory that a graph would need."""
        if rows * dim <= _SCANNED_FLOATS:
            return "flat", f"{rows:,} rows are scanned as fast as anything finds them"
        shared = self.options.model_dump(include={"shards", "freeze_at", "recall_target"})
        hnsw = HnswOptions(**shared)
        needed = rows * (dim + 2 * hnsw.m * 4)
        total = self.memory_bytes or _machine_bytes()
        if needed > _GRAPH_SHARE * total:
            why = f"a graph would need {needed / 2**20:,.0f} MiB of the machine's {total / 2**20:,.0f}"
            return IvfBuilder("ivf_pq", IvfOptions(**shared)), why
        return HnswBuilder(hnsw), f"a graph of {needed / 2**20:,.0f} MiB fits into memory"


def open_kind(kind: str, options: Mapping[str, object]) -> Kind:
    """The kind of a recipe. Raises InvalidArgument for wrong options."""
    match kind:
        case "flat":
            return Fixed(parse_options(FlatOptions, options), "flat")
        case "hnsw":
            hnsw = parse_options(HnswOptions, options)
            return Fixed(hnsw, HnswBuilder(hnsw))
        case "ivf_flat" | "ivf_pq":
            ivf = parse_options(IvfOptions, options)
            return Fixed(ivf, IvfBuilder(kind, ivf))
        case _:
            return Auto(parse_options(ApproximateOptions, options))


_SCANNED_FLOATS: Final = 2_048 * 384
"""Comparing with so many floats takes about as long as a walk through a graph (measured)."""
_GRAPH_SHARE: Final = 0.25
"""A graph that needs more of the machine's memory than this is too large: its pages are all hot."""


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
