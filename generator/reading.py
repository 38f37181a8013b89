"""A model's text as it comes: citations and a refusal found in it, or JSON left as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from generator.base import Delta, Quote
from generator.citations import CitationParser
from generator.prompt import REFUSAL


class Reader(Protocol):
    """Text to what the caller gets of it."""

    @property
    def removed_marks(self) -> int:
        """Citations that pointed nowhere."""
        ...

    @property
    def refused(self) -> bool:
        """Whether the model said that the passages do not answer."""
        ...

    def feed(self, text: str) -> Sequence[Delta | Quote]:
        """What the next piece of text gives."""
        ...

    def finish(self) -> Sequence[Delta | Quote]:
        """What was held back."""
        ...


class AnswerReader:
    """Text with marks. What may become the refusal is held back: a refusal has no text."""

    def __init__(self, parser: CitationParser) -> None:
        self._parser = parser
        self._held: str | None = ""
        """What came so far, while it may be the refusal; None once it is not."""

    @property
    def removed_marks(self) -> int:
        """Citations that pointed nowhere."""
        return self._parser.removed_marks

    @property
    def refused(self) -> bool:
        """Whether the text began with the refusal."""
        return self._held is not None and _plain(self._held).startswith(_plain(REFUSAL))

    def feed(self, text: str) -> Sequence[Delta | Quote]:
        """What the next piece of text gives."""
        if self._held is None:
            return self._parser.feed(text)
        self._held += text
        if self.refused or _plain(REFUSAL).startswith(_plain(self._held)):
            return ()
        return self._let_go()

    def finish(self) -> Sequence[Delta | Quote]:
        """What was held back."""
        if self.refused:
            return ()
        held = self._let_go() if self._held is not None else ()
        return [*held, *self._parser.finish()]

    def _let_go(self) -> Sequence[Delta | Quote]:
        held, self._held = self._held or "", None
        return self._parser.feed(held)


class JsonReader:
    """Text that has a form of its own."""

    removed_marks = 0
    refused = False

    def feed(self, text: str) -> Sequence[Delta | Quote]:
        """The same text."""
        return (Delta(text=text),) if text else ()

    def finish(self) -> Sequence[Delta | Quote]:
        """Nothing is held back."""
        return ()


def _plain(text: str) -> str:
    return "".join(text.casefold().split())
