"""Reads the citations in a stream of text, and finds what they rest on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from generator.base import Delta, Passage, Quote
from generator.marks import MARK, MAX_CHARS, PAIRS, may_become, may_begin, numbers
from generator.overlap import words_of_meaning
from generator.sentences import Span, sentences

Event: TypeAlias = Delta | Quote
_LEADING: Final = re.compile(rf"(?:\s|{MARK.pattern})+")
_LAST_MARK: Final = re.compile(r"\[\d{1,6}\]\Z")


class CitationParser:
    """Turns the text that a model streams into text for users, with a ``Quote`` behind each citation.

    ``marks`` maps the number of a mark, as the model writes it, to an index into ``passages``. What is a
    mark says ``generator.marks``; in code (``` `a[1]` ```, and fenced blocks) there are none. A valid mark
    comes out as ``[index + 1]``, the rank of its passage, and one of several numbers as several. A mark that
    points nowhere, or at a passage without text, is taken out with one space before it, and counted. All
    other text comes out unchanged; a space, and the beginning of what may become a mark (at most
    ``marks.MAX_CHARS``), is held back until the next characters tell. How the text is cut into chunks makes
    no difference.

    The answer's part of a quote is the sentence so far, without marks around it; where a mark opens a line,
    it is the mark itself. The passage's part is the sentence that shares most words of meaning with it, the
    whole text where none shares any. ``kept`` tells of passages of which only so many characters were sent.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        marks: Mapping[int, int],
        *,
        kept: Mapping[int, int] | None = None,
    ) -> None:
        kept = kept or {}
        self._texts = [p.text[: kept.get(i, len(p.text))] for i, p in enumerate(passages)]
        self._marks = {number: index for number, index in marks.items() if self._texts[index].strip()}
        self._sentences: dict[int, list[tuple[Span, frozenset[str]]]] = {}
        self._code = _Code()
        self._space = ""
        self._bracket = ""
        self._before = ""
        self._sentence = ""
        self._sentence_at = 0
        self._ended = self._cited = 0
        self._fresh: list[str] = []
        self._events: list[Event] = []
        self._removed = 0

    @property
    def removed_marks(self) -> int:
        """How many numbers in marks pointed nowhere so far."""
        return self._removed

    def feed(self, text: str) -> list[Event]:
        """What the next ``text`` of the model makes certain."""
        for character in text:
            self._read(character)
        return self._ready()

    def finish(self) -> list[Event]:
        """What was held back; the text is over."""
        self._release()
        return self._ready()

    def _read(self, character: str) -> None:
        self._code.read(character)
        if self._bracket:
            self._bracket += character
            if character == PAIRS[self._bracket[0]]:
                self._close()
            elif not may_become(self._bracket):
                held, self._bracket = self._bracket[:-1], ""
                self._say(self._space + held)
                self._space = ""
                self._begin(character)
        else:
            self._begin(character)
        self._before = (self._before + character)[-2 * MAX_CHARS :]

    def _begin(self, character: str) -> None:
        if character in PAIRS and not self._code.inside and may_begin(self._before):
            self._bracket = character
            return
        self._say(self._space)
        self._space = ""
        if character == " ":
            self._space = character
        else:
            self._say(character)

    def _close(self) -> None:
        """The bracket is complete: a mark, or text."""
        found = numbers(self._bracket)
        valid = list(dict.fromkeys(self._marks[n] for n in found if n in self._marks))
        self._removed += sum(n not in self._marks for n in found)
        if not found:
            self._release()
            return
        if valid:
            self._say(self._space)
        self._space = self._bracket = ""
        for index in valid:
            self._cite(index)

    def _release(self) -> None:
        self._say(self._space + self._bracket)
        self._space = self._bracket = ""

    def _say(self, text: str) -> None:
        if text:
            self._fresh.append(text)

    def _ready(self) -> list[Event]:
        self._flush()
        events, self._events = self._events, []
        return events

    def _flush(self) -> None:
        text = "".join(self._fresh)
        self._fresh.clear()
        self._sentence += text
        if text:
            self._events.append(Delta(text=text))

    def _cite(self, index: int) -> None:
        mark = f"[{index + 1}]"
        self._flush()
        at = self._sentence_at + len(self._sentence)
        said, answer = self._closed_sentence()
        self._say(mark)
        self._flush()
        if said:
            self._cited = len(self._sentence)
        else:
            self._forget(len(self._sentence))
            answer = Span(at, at + len(mark))
        quoted = self._best(index, said)
        self._events.append(
            Quote(
                passage=index,
                start=quoted.start,
                end=quoted.end,
                answer_start=answer.start,
                answer_end=answer.end,
            )
        )

    def _closed_sentence(self) -> tuple[str, Span]:
        """The last sentence of the answer so far, and where in it; empty where a line begins.

        Text before that sentence is forgotten.
        """
        since = self._sentence[self._cited :]
        # Another mark for the same sentence.
        if not self._cited or since.strip() or "\n" in since:
            self._ended = _end(self._sentence)
            if self._ended:
                *_, last = sentences(self._sentence[: self._ended])
                leading = _LEADING.match(self._sentence, last.start, self._ended)
                self._forget(leading.end() if leading else last.start)
        said = self._sentence[: self._ended]
        return said, Span(self._sentence_at, self._sentence_at + self._ended)

    def _forget(self, chars: int) -> None:
        """The first ``chars`` of the text kept are no part of the sentence."""
        self._sentence = self._sentence[chars:]
        self._sentence_at += chars
        self._ended = max(0, self._ended - chars)
        self._cited = 0

    def _best(self, index: int, said: str) -> Span:
        """The first of the passage's sentences with most, and then with few other, words of ``said``."""
        text = self._texts[index]
        if index not in self._sentences:
            self._sentences[index] = [
                (span, words_of_meaning(text[span.start : span.end])) for span in sentences(text)
            ]
        asked = words_of_meaning(said)
        best, best_score = Span(0, len(text)), (0, 0.0)
        for span, found in self._sentences[index]:
            shared = len(asked & found)
            score = (shared, shared / max(1, len(found)))
            if shared and score > best_score:
                best, best_score = span, score
        return best


def _end(text: str) -> int:
    """Where ``text`` ends but for white space and marks; 0 where its last line has nothing else."""
    while True:
        bare = text.rstrip()
        if "\n" in text[len(bare) :]:
            return 0
        mark = _LAST_MARK.search(bare[-8:])
        if mark is None:
            return len(bare)
        text = bare[: -len(mark[0])]


class _Code:
    """Whether the text is inside of Markdown's code: a fence, or backticks that the same line may close."""

    def __init__(self) -> None:
        self._fence = False
        self._opening = False
        self._span = 0
        self._run = 0
        self._line = ""

    @property
    def inside(self) -> bool:
        """Whether the character that was read last is in code."""
        return self._fence or self._span > 0

    def read(self, character: str) -> None:
        """Take the next character."""
        if character == "`":
            self._run += 1
            return
        if self._run:
            self._end_run()
        if character == "\n":
            self._span, self._line, self._opening = 0, "", False
        elif not self._line.strip():
            self._line += character

    def _end_run(self) -> None:
        if self._run >= 3 and not self._line.strip():
            self._fence = self._opening = not self._fence
        elif self._fence:
            # ```so``` is no fence.
            self._fence = not (self._opening and self._run >= 3)
        elif self._span == 0:
            self._span = self._run
        elif self._span == self._run:
            self._span = 0
        self._line = "`"
        self._run = 0
