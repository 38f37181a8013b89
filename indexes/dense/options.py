"""The options of the local dense indexes: a recipe's ``index`` table without its ``kind``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ragstone.errors import FieldViolation, InvalidArgument

_FIELD = "recipe.index"


class FlatOptions(BaseModel):
    """A flat index: every search compares with every vector, and is exact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shards: int = Field(1, ge=1, le=64)
    """Parts, by hash of key, that are searched in parallel. Fixed for the life of an index."""
    freeze_at: int = Field(2_048, ge=1, le=1_000_000)
    """So many new vectors are searched exactly in memory before they are frozen into a segment."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What builds and searches segments; ``auto`` is a GPU where there is one. Files are the same for all."""


class ApproximateOptions(FlatOptions):
    """An index that trades recall for speed."""

    recall_target: float = Field(0.98, ge=0.5, le=0.999)
    """Recall@10 on held-out vectors, for which each segment picks its cheapest search when it is frozen."""


class HnswOptions(ApproximateOptions):
    """An HNSW index."""

    m: int = Field(16, ge=4, le=96)
    """Links of a node on the upper layers; twice as many on the lowest one."""
    ef_construction: int = Field(200, ge=8, le=2_000)
    storage: Literal["float32", "fp16", "sq8"] = "sq8"
    """What the graph is walked over. Hits are always scored with the raw float32 vectors."""
    ef_search: int | None = Field(None, ge=1, le=4_096)
    """The width of every search, instead of a recall target."""

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        return _refuse_both(self, "ef_search")


class CagraOptions(HnswOptions):
    """A graph that a GPU builds and searches. Without one it is an HNSW graph."""

    storage: Literal["float32"] = "float32"


class IvfOptions(ApproximateOptions):
    """An inverted file, of whole vectors (``ivf_flat``) or of product codes (``ivf_pq``)."""

    nlist: int | None = Field(None, ge=1, le=65_536)
    """Lists; the square root of a segment's rows by default."""
    nprobe: int | None = Field(None, ge=1, le=65_536)
    """The lists that every search reads, instead of a recall target."""

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        return _refuse_both(self, "nprobe")


_ModelT = TypeVar("_ModelT", bound=BaseModel)


def _refuse_both(model: _ModelT, knob: str) -> _ModelT:
    if {knob, "recall_target"} <= model.model_fields_set and getattr(model, knob) is not None:
        raise ValueError(f"give {knob} or recall_target, not both")
    return model


def parse_options(model: type[_ModelT], options: Mapping[str, object]) -> _ModelT:
    """The options as a value. Raises InvalidArgument with one violation for each wrong or unknown option."""
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        violations = tuple(
            FieldViolation(".".join([_FIELD, *map(str, item["loc"])]), item["msg"]) for item in error.errors()
        )
        text = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise InvalidArgument(text, violations=violations) from error
