"""The options of an index in PostgreSQL: a recipe's ``index`` table without its ``kind``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from indexes.dense.options import parse_options
from ragstone.errors import FailedPrecondition, InvalidArgument

_SECRETS: Final = ("password", "sslpassword")
_MOST_DIMENSIONS: Final = 16_000
"""Of a vector in a table."""
_INDEXED_DIMENSIONS: Final[Mapping[str, int]] = {"float32": 2_000, "float16": 4_000}
"""That an index takes."""


class PgvectorOptions(BaseModel):
    """Where the database is and how hard it is asked. ``method = "exact"``: every search scans the table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """``postgresql://user@host:port/database?...``, as libpq takes it, and without a password."""
    password_env: str | None = Field(None, pattern=r"^[A-Z][A-Z0-9_]*_PASSWORD$")
    """The environment variable that has it: recipes are stored and shown, so no password stands in one.

    Without it libpq looks for one as ever: in ``PGPASSWORD``, or in the file that ``PGPASSFILE`` names.
    """
    method: Literal["exact", "hnsw", "ivfflat"] = "hnsw"
    pool: int = Field(8, ge=1, le=256)
    """Connections at once; a search has one to itself."""
    timeout_s: float = Field(10.0, gt=0, le=600)
    """Of one statement. Building an index may take longer."""
    connect_timeout_s: float = Field(3.0, gt=0, le=60)

    @field_validator("url")
    @classmethod
    def _names_a_database_and_no_secret(cls, url: str) -> str:
        if not url.startswith(("postgresql://", "postgres://")):
            raise ValueError("must be postgresql://user@host:port/database")
        try:
            parts = conninfo_to_dict(url)
        except ProgrammingError as exc:
            # Not in its words: they quote what may be a password.
            raise ValueError("is no URL that PostgreSQL's libpq understands") from exc
        if any(secret in parts for secret in _SECRETS):
            raise ValueError(
                "has a password in it, and recipes are stored and shown: name an environment variable in "
                "password_env, or leave it to PGPASSFILE"
            )
        return url

    @property
    def most_dimensions(self) -> int:
        """That the method takes."""
        return _MOST_DIMENSIONS

    def connection(self) -> dict[str, Any]:
        """The arguments of a connection. Raises FailedPrecondition when the variable is not set."""
        secret = {}
        if self.password_env is not None:
            password = os.environ.get(self.password_env)  # noqa: TID251 - the recipe says which; no setting
            if not password:
                raise FailedPrecondition.at(
                    "recipe.index.password_env", f"the environment variable {self.password_env} is not set"
                )
            secret["password"] = password
        return {**conninfo_to_dict(self.url), **secret}


class IndexedOptions(PgvectorOptions):
    """An approximate index over the table."""

    storage: Literal["float32", "float16"] = "float32"
    """What the index is over. The table has float32, and hits are always scored with that."""
    build_memory_mb: int = Field(256, ge=16, le=1_048_576)
    """Memory of a build (``maintenance_work_mem``); a graph that does not fit is built much slower."""
    build_workers: int = Field(2, ge=0, le=64)
    """Processes that help with a build (``max_parallel_maintenance_workers``)."""

    @property
    def most_dimensions(self) -> int:
        """That the method takes."""
        return _INDEXED_DIMENSIONS[self.storage]


class HnswOptions(IndexedOptions):
    """A graph."""

    method: Literal["hnsw"] = "hnsw"
    m: int = Field(16, ge=2, le=100)
    """Links of a node on the upper layers; twice as many on the lowest one."""
    ef_construction: int = Field(100, ge=4, le=1_000)
    ef_search: int = Field(100, ge=1, le=1_000)
    """The width of a search, at least."""

    @model_validator(mode="after")
    def _is_wide_enough(self) -> Self:
        if self.ef_construction < 2 * self.m:
            raise ValueError("ef_construction must be at least twice m")
        return self


class IvfflatOptions(IndexedOptions):
    """Lists of vectors by nearest centroid."""

    method: Literal["ivfflat"] = "ivfflat"
    lists: int | None = Field(None, ge=1, le=32_768)
    """The square root of the rows by default."""
    probes: int | None = Field(None, ge=1, le=32_768)
    """Lists that a search reads, at least; an eighth of them by default."""


_MODELS: Final[Mapping[object, type[PgvectorOptions]]] = {
    "exact": PgvectorOptions,
    "hnsw": HnswOptions,
    "ivfflat": IvfflatOptions,
}


def parse(options: Mapping[str, object]) -> PgvectorOptions:
    """The options of the method that they name.

    Raises InvalidArgument naming ``recipe.index.<key>`` for each that is wrong, or belongs to another method.
    """
    return parse_options(_MODELS.get(options.get("method", "hnsw"), PgvectorOptions), options)


def expect_dimension(options: PgvectorOptions, dim: int) -> None:
    """Raises InvalidArgument for more dimensions than the method takes, saying what would take them."""
    if dim > options.most_dimensions:
        takes = (
            f"{options.method} takes at most {options.most_dimensions:,} dimensions, and vectors have {dim:,}"
        )
        others = "float16 takes 4,000 of an index, method 'exact' 16,000"
        raise InvalidArgument.at("recipe.index.storage", f"{takes}; {others}")
