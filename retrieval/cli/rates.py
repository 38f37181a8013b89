"""How fast a machine is: rates that sizing multiplies with. Measured here, given in a file, or published."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, ValidationError

from ragstone.errors import InvalidArgument
from retrieval.config import invalid


class Basis(StrEnum):
    """What a number rests on."""

    ARITHMETIC = "arithmetic"
    """A formula over what was given."""
    MEASURED = "measured"
    """A rate of one's own hardware (``--measure``, ``--measured``), scaled by a formula."""
    PUBLISHED = "published"
    """The same with a rate from this project's benchmarks, of another machine: an order of magnitude."""


MODEL_PARAMETERS: Final = 10.6e6
"""Weights of all-MiniLM-L6-v2 that every token is multiplied with: 6 layers of ``12 * 384 ** 2``."""


class IndexRate(BaseModel, frozen=True, extra="forbid"):
    """One kind of index, measured at one size on one core."""

    rows: int = Field(ge=2)
    dim: PositiveInt
    searches_s: PositiveFloat
    build_rows_s: PositiveFloat | None = None
    """From the first row to the last merge."""
    build_rows: PositiveInt | None = None
    """How many rows that was; ``rows`` where it is not set."""
    bytes_a_row: PositiveFloat | None = None
    """On disk, with keys and raw vectors."""

    def search_ms(self, kind: str, rows: int, dim: int) -> float:
        """One search at another size: in proportion to ``dim``, and to how far a search of the kind goes.

        A scan goes through all rows; an inverted file of ``sqrt(rows)`` lists through a constant number of
        them, so ``sqrt(rows)``; a graph grows with ``log(rows)`` (Malkov and Yashunin, 2016, section 4.2).
        What caches too small for the rows cost comes on top: it is not in it.
        """
        growth = {"flat": lambda n: float(n), "ivf_flat": math.sqrt, "ivf_pq": math.sqrt}.get(kind, math.log)
        return 1e3 / self.searches_s * growth(max(2, rows)) / growth(max(2, self.rows)) * dim / self.dim

    def build_s(self, rows: int, dim: int) -> float | None:
        """Seconds of one core to build an index of another size: ``n log n``, as insertions are searches."""
        if self.build_rows_s is None:
            return None
        growth = math.log(max(2, rows)) / math.log(self.build_rows or self.rows)
        return rows / self.build_rows_s * growth * dim / self.dim


class Rates(BaseModel, frozen=True, extra="forbid"):
    """One machine. Milliseconds are of one core, so a machine of ``c`` cores has ``1000 * c`` a second."""

    source: str = Field(min_length=1)
    basis: Basis = Basis.MEASURED
    embed_tokens_s_core: PositiveFloat
    """Tokens of passages that one core embeds a second, with ``model_parameters``."""
    query_core_ms: PositiveFloat
    """To embed one query, among others."""
    service_core_ms: PositiveFloat
    """All of a hybrid text search but the query's vector and the dense leg."""
    rerank_core_ms: float = Field(0.0, ge=0)
    """Late interaction over 50 passages."""
    loop_ms: PositiveFloat
    """What the event loop, of which a server has one, spends on a search."""
    search_ms: PositiveFloat
    """The median of one search at a time."""
    most_searches_s: PositiveFloat
    """The most that one server answered: it is one process, whose Python runs on one core at a time."""
    embed_tokens_s_gpu: PositiveFloat | None = None
    model_parameters: PositiveFloat = MODEL_PARAMETERS
    service_rows: PositiveInt = 5_000
    """The chunks with which ``service_core_ms`` was measured."""
    indexes: Mapping[str, IndexRate] = Field(default_factory=dict)
    """By kind."""

    def of_model(self, parameters: float) -> Self:
        """The rates with a model of so many weights: its time grows in proportion to them.

        True of products of matrices alone; attention over long texts comes on top.
        """
        times = parameters / self.model_parameters
        gpu = self.embed_tokens_s_gpu
        return self.model_copy(
            update={
                "embed_tokens_s_core": self.embed_tokens_s_core / times,
                "query_core_ms": self.query_core_ms * times,
                "search_ms": self.search_ms + self.query_core_ms * (times - 1),
                "embed_tokens_s_gpu": None if gpu is None else gpu / times,
                "model_parameters": parameters,
            }
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """The rates in a JSON file, as ``ragstone capacity --measure --json`` prints them under ``rates``.

        Raises InvalidArgument naming the file, and each wrong field.
        """
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidArgument.at("measured", f"{path}: {error}") from error
        if isinstance(found, dict) and "rates" in found:
            found = found["rates"]
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            raise invalid("measured", error) from error


PUBLISHED: Final = Rates(
    source="benchmarks/results/2026-11-*.md: 2 cores, AMD EPYC, AVX-512",
    basis=Basis.PUBLISHED,
    # embed: 107 passages of 119 tokens a second on 2 cores; 515 queries a second on 2 cores.
    embed_tokens_s_core=107 * 119 / 2,
    query_core_ms=2_000 / 515,
    # search: 203 hybrid searches a second on the 2 cores of server and clients, less the two parts above.
    service_core_ms=2_000 / 203 - 2_000 / 515 - 0.1,
    rerank_core_ms=1.3,
    # search: 2,039 searches by vector a second, the loop busy for 97%; a search by text takes more of it.
    loop_ms=1e3 / 2_039,
    search_ms=8.2,
    most_searches_s=203,
    indexes={
        "flat": IndexRate(rows=50_000, dim=384, searches_s=833),
        "hnsw": IndexRate(rows=50_000, dim=384, searches_s=8_160, build_rows_s=720, build_rows=10**6),
        "ivf_pq": IndexRate(rows=50_000, dim=384, searches_s=8_249, build_rows_s=12_399, build_rows=10**6),
        # pgvector answered 2,542 a second on both cores, its client among them.
        "pgvector": IndexRate(rows=50_000, dim=384, searches_s=2_542 / 2),
    },
)
"""Rates of other hardware than yours. ``qdrant`` is missing: a server of it has not been measured."""
