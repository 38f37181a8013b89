"""The options of the local dense indexes: a recipe's ``index`` table without its ``kind``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ragstone.errors import FieldViolation, InvalidArgument

_FIELD = "recipe.index"


class FlatOptions(BaseModel):
    """A flat index: every search compares with every vector, and is exact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shards: int = 1
    freeze_at: int = Field(2_048, ge=1, le=1_000_000)
    """So many new vectors are searched exactly in memory before they are frozen into a segment."""

    @field_validator("shards")
    @classmethod
    def _one_shard(cls, shards: int) -> int:
        if shards != 1:
            raise ValueError("only 1 is supported for now: a local index is not split")
        return shards


class HnswOptions(FlatOptions):
    """An HNSW index; the defaults reach recall@10 of .98 and more on 50,000 text embeddings."""

    m: int = Field(32, ge=4, le=96)
    """Links of a node on the upper layers; twice as many on the lowest one."""
    ef_construction: int = Field(200, ge=8, le=2_000)
    ef_search: int = Field(48, ge=1, le=4_096)
    """The width of a search. Where ``recall_target`` is set, each segment measures its own instead."""
    recall_target: float | None = Field(None, ge=0.5, le=0.999)
    """Recall@10 on held-out vectors, for which each segment picks its cheapest width when it is frozen."""


_OptionsT = TypeVar("_OptionsT", bound=BaseModel)


def parse_options(model: type[_OptionsT], options: Mapping[str, object]) -> _OptionsT:
    """The options as a value. Raises InvalidArgument with one violation for each wrong or unknown option."""
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        violations = tuple(
            FieldViolation(".".join([_FIELD, *map(str, item["loc"])]), item["msg"]) for item in error.errors()
        )
        text = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise InvalidArgument(text, violations=violations) from error
