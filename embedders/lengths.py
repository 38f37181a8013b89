"""Texts that are longer than a model reads: which ones, and by how much."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from embedders.base import Embedder
from ragstone.errors import FieldViolation, InvalidArgument
from ragstone.types import Truncation

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TooLong: TypeAlias = Literal["truncate", "error"]
"""What becomes of a text that is longer than the model reads: only its beginning counts, or it is refused."""

_INLINE_CHARS: Final = 4_000
"""Up to so many characters are tokenised on the event loop: quicker than a hop to a thread."""
_MARKS: Final = 8
"""More tokens than any tokenizer puts around a text, and before its first word."""


async def truncations(
    embedder: Embedder, texts: Sequence[str], *, passages: bool = False
) -> Mapping[int, Truncation]:
    """By their places, those of ``texts`` of which the embedder reads only the beginning.

    Empty where that is not known: the embedder has no tokenizer here, or no limit.
    """
    tokenizer, space = embedder.tokenizer, embedder.space
    if tokenizer is None or not space.max_tokens:
        return {}
    prompt = space.passage_prompt if passages else space.query_prompt
    prompted = [prompt + text for text in texts] if prompt else texts
    if sum(map(len, prompted)) <= _INLINE_CHARS:
        return measure(tokenizer, prompted, limit=space.max_tokens)
    return await asyncio.to_thread(measure, tokenizer, prompted, limit=space.max_tokens)


def measure(tokenizer: Tokenizer, texts: Sequence[str], *, limit: int) -> Mapping[int, Truncation]:
    """By their places, those of ``texts``, prompts included, that have more than ``limit`` tokens."""
    found = {}
    for i, text in enumerate(texts):
        # A token of ASCII text has one character at least: most queries need not be tokenised for this.
        if text.isascii() and len(text) + _MARKS <= limit:
            continue
        tokens = len(tokenizer.encode(text))
        if tokens > limit:
            found[i] = Truncation(tokens=tokens, limit=limit)
    return found


def refuse(found: Mapping[int, Truncation]) -> None:
    """Raise InvalidArgument that names each of the texts as ``texts[i]``, with its length and the limit."""
    if not found:
        return
    violations = tuple(
        FieldViolation(f"texts[{i}]", f"has {cut.tokens:,} tokens, and the embedder reads {cut.limit:,}")
        for i, cut in found.items()
    )
    message = "; ".join(f"{v.field}: {v.description}" for v in violations)
    raise InvalidArgument(message, violations=violations)
