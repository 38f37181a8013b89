"""What an index runs on. Its files are the same for all devices, and each of them can be read by a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from indexes.base import Metric, Vectors
from indexes.dense.structures import CPU, Structure


class PlacedStructure(Structure, Protocol):
    """A structure that lies in the memory of another device than the CPU."""

    device: str
    """Which one."""
    most: int
    """How many rows it can fetch for one query."""
    required: bool
    """Whether a search for which the device has no memory fails, instead of running on the CPU."""


class Device(Protocol):
    """What helps to build an index, and may search it."""

    @property
    def name(self) -> str:
        """As statistics name it."""
        ...

    @property
    def code_bits(self) -> int:
        """The bits of each product code that it compares fastest."""
        ...

    @property
    def builds_graphs(self) -> bool:
        """Whether it has a way of its own to build graphs over whole vectors."""
        ...

    def train(self, index: Any, sample: Vectors) -> None:
        """Train a ``faiss.IndexIVF`` of the CPU."""
        ...

    def grow(self, index: Any, vectors: Vectors, cancelled: Callable[[], bool]) -> bool:
        """Put all of ``vectors`` into an empty FAISS index of the CPU. False if it stays empty.

        Raises FailedPrecondition soon after ``cancelled`` says so; a graph is not broken off.
        """
        ...

    def place(
        self, kind: str, vectors: Vectors, metric: Metric, load: Callable[[], Any]
    ) -> PlacedStructure | None:
        """A segment of a kind in the device's memory; None if the CPU searches it.

        ``load`` returns its FAISS index, if the kind has one, for this call alone. Raises OutOfMemory
        where the recipe insists on the device.
        """
        ...

    def close(self) -> None:
        """Give its memory back. Nothing that was placed can be searched afterwards."""
        ...


@dataclass(frozen=True, slots=True)
class Host:
    """The CPU."""

    name: str = CPU
    code_bits: int = 4
    builds_graphs: bool = False

    def train(self, index: Any, sample: Vectors) -> None:
        """See ``Device``."""
        index.train(sample)

    def grow(self, index: Any, vectors: Vectors, cancelled: Callable[[], bool]) -> bool:
        """Rows are added one after the other by whoever builds."""
        return False

    def place(
        self, kind: str, vectors: Vectors, metric: Metric, load: Callable[[], Any]
    ) -> PlacedStructure | None:
        """Everything is where it is."""
        return None

    def close(self) -> None:
        """There is nothing to give back."""


HOST: Final = Host()
