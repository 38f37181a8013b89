"""Which texts a model scores together. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def plan(lengths: Sequence[int], *, batch_tokens: int, group_tokens: int) -> list[list[int]]:
    """Batches of indices: each of one text, or of at most ``batch_tokens`` tokens, padding included.

    Texts of like length go together, but only within groups of neighbours of about ``group_tokens``, and the
    groups stay in order: whenever the time runs out, what is done is the first texts and few others.
    """
    batches: list[list[int]] = []
    for group in _groups(lengths, group_tokens):
        batch: list[int] = []
        for i in sorted(group, key=lambda i: (-lengths[i], i)):
            # Longest first: the first one of a batch tells how long all of it is.
            if batch and lengths[batch[0]] * (len(batch) + 1) > batch_tokens:
                batches.append(batch)
                batch = []
            batch.append(i)
        batches.append(batch)
    return batches


def _groups(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    groups: list[list[int]] = []
    room = 0
    for i, length in enumerate(lengths):
        if not groups or length > room:
            groups.append([])
            room = tokens
        groups[-1].append(i)
        room -= length
    return groups
