"""Which keys searches see, and who still looks at those of before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pyroaring import BitMap64


@dataclass(slots=True)
class _View:
    live: BitMap64
    readers: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)


class Views:
    """The keys that are there now. Belongs to one event loop; a view is never changed, only replaced."""

    def __init__(self, live: BitMap64) -> None:
        self._view = _View(live)

    @property
    def live(self) -> BitMap64:
        """The keys that a search would see now. Not to be changed."""
        return self._view.live

    @contextmanager
    def reading(self) -> Iterator[BitMap64]:
        """The keys that are there now, for one search."""
        view = self._view
        view.readers += 1
        try:
            yield view.live
        finally:
            view.readers -= 1
            if not view.readers:
                view.left.set()

    async def replace(self, live: BitMap64) -> None:
        """Let all later searches see these, and wait for those that see the former ones."""
        former, self._view = self._view, _View(live)
        while former.readers:
            former.left.clear()
            await former.left.wait()
