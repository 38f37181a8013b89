"""The kinds of segments: who builds them, and how one that was read back is searched."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from indexes.dense.devices import HOST, Device
from indexes.dense.faiss_gpu import open_device
from indexes.dense.faiss_hnsw import HnswBuilder, HnswStructure
from indexes.dense.faiss_ivf import IvfBuilder, IvfStructure
from indexes.dense.options import (
    ApproximateOptions,
    CagraOptions,
    FlatOptions,
    HnswOptions,
    IvfOptions,
    parse_options,
)
from indexes.dense.structures import Builder, Structure

STRUCTURES: Final[Mapping[str, Callable[[Any], Structure]]] = {
    "hnsw": HnswStructure,
    "ivf_flat": IvfStructure,
    "ivf_pq": IvfStructure,
    "cagra": HnswStructure,
}
"""Segment kind -> its structure around a ``faiss.Index``."""

Form = Builder | Literal["flat"]


class Kind(Protocol):
    """What an index makes of its segments."""

    @property
    def options(self) -> FlatOptions:
        """The options that all kinds share."""
        ...

    @property
    def device(self) -> Device:
        """What builds and searches the segments."""
        ...

    def form(self, rows: int, dim: int) -> tuple[Form, str]:
        """The form of a segment of so many rows, and why it is this one."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same form for all segments."""

    options: FlatOptions
    always: Form
    device: Device = HOST
    why: str = "the recipe says so"

    def form(self, rows: int, dim: int) -> tuple[Form, str]:
        """What the recipe says."""
        return self.always, self.why


@dataclass(frozen=True, slots=True)
class Auto:
    """Flat for small segments, product codes where memory is short, graphs for all between."""

    options: ApproximateOptions
    device: Device = HOST
    memory_bytes: int | None = None
    """What the machine has, where it is not to be asked."""

    def form(self, rows: int, dim: int) -> tuple[Form, str]:
        """By the cost of a scan, and by the memory that a graph would need."""
        if rows * dim <= _SCANNED_FLOATS:
            return "flat", f"{rows:,} rows are scanned as fast as anything finds them"
        shared = self.options.model_dump(include={"shards", "freeze_at", "device", "recall_target"})
        hnsw = HnswOptions(**shared)
        needed = rows * (dim + 2 * hnsw.m * 4)
        total = self.memory_bytes or _machine_bytes()
        if needed > _GRAPH_SHARE * total:
            why = f"a graph would need {needed / 2**20:,.0f} MiB of the machine's {total / 2**20:,.0f}"
            return IvfBuilder("ivf_pq", IvfOptions(**shared), self.device), why
        return HnswBuilder(hnsw, self.device), f"a graph of {needed / 2**20:,.0f} MiB fits into memory"


def open_kind(kind: str, options: Mapping[str, object]) -> Kind:
    """The kind of a recipe. Raises InvalidArgument for wrong options."""
    parsed = parse_options(_OPTIONS.get(kind, ApproximateOptions), options)
    device = open_device(parsed.device)
    match parsed:
        case CagraOptions():
            why = "the recipe says so" if device.builds_graphs else _NO_CAGRA
            return Fixed(parsed, HnswBuilder(parsed, device, "cagra"), device, why)
        case HnswOptions():
            return Fixed(parsed, HnswBuilder(parsed, device), device)
        case IvfOptions():
            return Fixed(
                parsed, IvfBuilder("ivf_flat" if kind == "ivf_flat" else "ivf_pq", parsed, device), device
            )
        case ApproximateOptions():
            return Auto(parsed, device)
        case _:
            return Fixed(parsed, "flat", device)


_OPTIONS: Final[Mapping[str, type[FlatOptions]]] = {
    "flat": FlatOptions,
    "hnsw": HnswOptions,
    "cagra": CagraOptions,
    "ivf_flat": IvfOptions,
    "ivf_pq": IvfOptions,
}
_NO_CAGRA: Final = "the recipe says so; built on the CPU, for there is no GPU with CAGRA"
_SCANNED_FLOATS: Final = 2_048 * 384
"""Comparing with so many floats takes about as long as a walk through a graph (measured)."""
_GRAPH_SHARE: Final = 0.25
"""A graph that needs more of the machine's memory than this is too large: its pages are all hot."""


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
