"""The options of indexes in Qdrant: a recipe's ``index`` table without its ``kind``."""

from __future__ import annotations

import os
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ragstone.errors import FailedPrecondition


class GraphOptions(BaseModel):
    """How Qdrant builds and searches; its own words for it."""

    # A URL that is refused may hold a password.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    m: int = Field(16, ge=4, le=96)
    """Links of a node on the upper layers; twice as many on the lowest one."""
    ef_construct: int = Field(100, ge=4, le=2_000)
    ef_search: int | None = Field(None, ge=1, le=4_096)
    """The width of a search; ``ef_construct`` where it is not given."""
    quantization: Literal["none", "scalar", "binary", "product"] = "none"
    """What the graph is walked over: whole vectors, bytes, bits, or product codes (a sixteenth)."""
    rescore: bool = True
    """Hits of a quantised search are scored again with the whole vectors."""
    oversampling: float = Field(2.0, ge=1, le=100)
    """So many times more hits than wanted are scored again."""
    on_disk: bool = False
    """Whole vectors are mapped from disk, not kept in memory."""
    batch: int = Field(256, ge=1, le=10_000)
    """Points of one write."""


class EdgeOptions(GraphOptions):
    """The embedded engine."""

    graph_at: int = Field(10_000, ge=1, le=10_000_000)
    """So many vectors are compared one by one before a graph is built over all."""


class QdrantOptions(GraphOptions):
    """Where Qdrant is, how it keeps a collection, and how hard it is asked. ``url`` or ``path``, not both."""

    url: str | None = Field(None, max_length=500)
    """``http://HOST:PORT`` or ``https://...``, without credentials."""
    grpc_port: int = Field(6334, ge=1, le=65_535)
    """All that is asked goes there; the port of ``url`` is not used."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Z][A-Z0-9_]*_API_KEY$")
    """The environment variable that has the key: recipes are stored and shown, so no key stands in one."""
    path: str | None = Field(None, min_length=1, max_length=4_096)
    """A folder for qdrant-client's local mode, which is exact and slow: for tests and small collections."""
    shard_number: int | None = Field(None, ge=1, le=1_024)
    replication_factor: int | None = Field(None, ge=1, le=64)
    write_consistency_factor: int | None = Field(None, ge=1, le=64)
    timeout_s: float = Field(10.0, gt=0, le=600)
    """For one request."""
    failures: int = Field(5, ge=1, le=1_000)
    """So many requests in a row without an answer, and Qdrant is left alone for ``open_s``."""
    open_s: float = Field(5.0, gt=0, le=3_600)

    @field_validator("url")
    @classmethod
    def _names_a_server_and_no_secret(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be http://HOST:PORT or https://HOST:PORT")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must hold no credentials; name an environment variable in api_key_env")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("must end with the host and its port")
        return url

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.url is None) == (self.path is None):
            raise ValueError("give url or path, one of them")
        return self

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return f"Qdrant at {self.url or self.path}"

    def api_key(self) -> str | None:
        """The key, from the environment. Raises FailedPrecondition when the variable is not set."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env)  # noqa: TID251 - the recipe says which; its value is no setting
        if not key:
            raise FailedPrecondition.at(
                "recipe.index.api_key_env", f"the environment variable {self.api_key_env} is not set"
            )
        return key
