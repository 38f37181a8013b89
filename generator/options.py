"""A generator's options to frozen values, with Ragstone's own errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ragstone.errors import FieldViolation, InvalidArgument

_Options = TypeVar("_Options", bound=BaseModel)


def parse_options(model: type[_Options], options: Mapping[str, Any]) -> _Options:
    """``options`` as a ``model``. Raises InvalidArgument that names every wrong field."""
    try:
        return model.model_validate(dict(options))
    except ValidationError as exc:
        violations = tuple(
            FieldViolation(".".join(("options", *map(str, error["loc"]))), error["msg"])
            for error in exc.errors()
        )
        message = "; ".join(f"{v.field}: {v.description}" for v in violations)
        raise InvalidArgument(message, violations=violations) from exc
