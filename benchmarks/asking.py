"""Callers of something that embeds. Standard library only: peers in environments of their own run it too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from time import perf_counter
from typing import Any

Embed = Callable[[list[str]], Awaitable[Any]]


async def ask(embed: Embed, texts: Sequence[str]) -> list[float]:
    """One text after the other: milliseconds of each."""
    taken = []
    for text in texts:
        began = perf_counter()
        await embed([text])
        taken.append((perf_counter() - began) * 1e3)
    return taken


async def ask_for(embed: Embed, texts: Sequence[str], seconds: float) -> list[float]:
    """As ``ask``, round and round through ``texts``."""
    began, taken = perf_counter(), list[float]()
    while perf_counter() - began < seconds:
        taken += await ask(embed, [texts[len(taken) % len(texts)]])
    return taken


async def per_s(embed: Embed, texts: Sequence[str]) -> float:
    """Texts a second, all in one call."""
    began = perf_counter()
    await embed(list(texts))
    return len(texts) / (perf_counter() - began)


async def per_s_of_clients(embed: Embed, texts: Sequence[str], clients: int) -> float:
    """Texts a second of ``clients`` that each ask for one text at a time."""
    began = perf_counter()
    await asyncio.gather(*(ask(embed, texts[i::clients]) for i in range(clients)))
    return len(texts) / (perf_counter() - began)


@contextmanager
def busy_python() -> Iterator[None]:
    """A thread of this process that computes in Python without a pause, as a server's other work may."""
    over = Event()

    def work() -> None:
        total = 0
        while not over.is_set():
            for number in range(1_000):
                total += number * number % 7

    thread = Thread(target=work, name="busy", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
