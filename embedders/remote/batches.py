"""Which texts go to a server together. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

Count = Callable[[str], int]

_BYTES_PER_TOKEN = 4


def estimate(text: str) -> int:
    """About how many tokens a text has, where no tokenizer tells: a word piece has some 4 bytes of UTF-8."""
    return len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN + 1


def batches(tokens: Sequence[int], *, max_texts: int, max_tokens: int) -> Iterator[list[int]]:
    """Positions, every one once: like lengths together, at most so many texts and tokens.

    The longest go first, so that no long batch is left for the end. A text above ``max_tokens`` goes alone.
    """
    batch: list[int] = []
    total = 0
    for i in sorted(range(len(tokens)), key=tokens.__getitem__, reverse=True):
        if batch and (len(batch) == max_texts or total + tokens[i] > max_tokens):
            yield batch
            batch, total = [], 0
        batch.append(i)
        total += tokens[i]
    if batch:
        yield batch
