"""The options of a lexical index, as they stand in a recipe's ``lexical`` table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from indexes.base import TextBatch
from indexes.lexical.analysis import detect_language
from indexes.lexical.languages import LANGUAGES
from ragstone.errors import FieldViolation, InvalidArgument

AUTO: Final = "auto"


class LexicalOptions(BaseModel):
    """``language`` is ``auto``, which follows each text, or one ISO 639-1 code for all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    language: str = AUTO

    @field_validator("language")
    @classmethod
    def _is_known(cls, language: str) -> str:
        if language != AUTO and language not in LANGUAGES:
            raise ValueError(f"must be {AUTO!r} or one of {', '.join(sorted(LANGUAGES))}")
        return language

    @property
    def fixed_language(self) -> str | None:
        """The one language of all texts, or None."""
        return None if self.language == AUTO else self.language

    def languages_of(self, batch: TextBatch) -> list[str]:
        """The language of each text of ``batch``: the fixed one, the given one, or the detected one."""
        if self.fixed_language:
            return [self.fixed_language] * len(batch.texts)
        return [detect_language(text, hint) for text, hint in zip(batch.texts, batch.languages, strict=True)]


class OkapiOptions(LexicalOptions):
    """BM25's own: ``k1`` saturates repeated terms, ``b`` makes long texts pay."""

    k1: float = Field(default=1.2, ge=0, le=10)
    b: float = Field(default=0.75, ge=0, le=1)


OptionsT = TypeVar("OptionsT", bound=LexicalOptions)


def parse_options(model: type[OptionsT], options: Mapping[str, object]) -> OptionsT:
    """``options`` as a ``model``.

    Raises InvalidArgument, with a violation of ``recipe.lexical.<field>`` for each wrong one.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as exc:
        violations = tuple(
            FieldViolation(".".join(("recipe.lexical", *map(str, error["loc"]))), error["msg"])
            for error in exc.errors()
        )
        message = "; ".join(f"{each.field}: {each.description}" for each in violations)
        raise InvalidArgument(message, violations=violations) from exc
