"""The options of a token index, as they stand in a recipe's ``tokens`` table."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, Field, ValidationError

from ragstone.errors import FieldViolation, InvalidArgument


class TokenOptions(BaseModel, frozen=True, extra="forbid"):
    """How far token vectors are compressed."""

    dim: int = Field(128, ge=8, le=1024)
    """Numbers that are kept of each vector, once enough tokens were seen to choose them by; the model's own
    where it has fewer."""
    keep: float = Field(0.34, gt=0, le=1)
    """The share of a passage's tokens that is left when those most alike have been joined."""


def parse_options(options: Mapping[str, object]) -> TokenOptions:
    """``options`` as values. Raises InvalidArgument naming ``recipe.tokens.<key>``."""
    try:
        return TokenOptions.model_validate(dict(options))
    except ValidationError as exc:
        violations = tuple(
            FieldViolation(".".join(("recipe", "tokens", *map(str, error["loc"]))), error["msg"])
            for error in exc.errors()
        )
        message = "; ".join(f"{v.field}: {v.description}" for v in violations)
        raise InvalidArgument(message, violations=violations) from exc
