"""What waits for a model, by tenant: who is next, who may still come in, and how long that takes.

Turns are by tokens served, as in start-time fair queueing (Goyal, Vin and Cheng 1996, "Start-time Fair
Queueing", SIGCOMM), with one account a tenant, as in "Fairness in Serving Large Language Models" (Sheng et
al. 2024, OSDI). Room is shared by a dynamic threshold (Choudhury and Hahne 1998, "Dynamic Queue Length
Thresholds for Shared-Memory Packet Switches", IEEE/ACM Transactions on Networking 6(2)).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace, merge
from itertools import count
from typing import Final, Generic, TypeVar

TENANT_SHARE: Final = 4
"""A tenant may hold so many times what is still free: alone 4/5 of the queue, one of two 4/9."""
_FLOOR_SHARE: Final = 8
"""A batch costs something, however short: who opens one pays for an eighth of its budget at least."""


@dataclass(slots=True, eq=False)
class Entry:
    """Something that waits; ``tokens`` is its length."""

    tokens: int
    line: _Line | None = field(default=None, init=False)
    """Where it waits; None before and after."""


E = TypeVar("E", bound=Entry)


@dataclass(slots=True, eq=False)
class _Line:
    """What one tenant has waiting, oldest first, and its account of tokens served."""

    tenant: str
    served: int
    tokens: int = 0
    entries: OrderedDict[Entry, None] = field(default_factory=OrderedDict)


class Lane(Generic[E]):
    """Waiting entries of one class, by tenant and length. Not thread-safe.

    The tenant that was served least opens the next batch, with its oldest entry; that decides the length.
    Neighbours in length join, of all tenants in turn. One that is a batch ahead joins last, where nobody else
    fits, and does not pay for that. So, of tenants that wait, the accounts differ by less than a batch and an
    entry, whatever each of them has waiting; and no batch is smaller for it.

    An entry costs O(log n) to put in and take out, but for moving the list of distinct lengths.
    """

    def __init__(self, budget: int) -> None:
        self.tokens = 0
        self._budget = budget
        self._shelves: dict[int, OrderedDict[_Line, OrderedDict[E, None]]] = {}
        self._lengths: list[int] = []
        self._lines: dict[str, _Line] = {}
        self._waiting = 0
        """Lines that have entries; an empty one is kept while its account is ahead of the others."""
        # Each line once, by an account that may have grown since: then it is corrected when it comes up.
        self._turns: list[tuple[int, int, _Line]] = []
        self._order = count()
        self._clock = 0
        """The account with which the last batch was opened: who comes back from a pause starts there."""
        self._ceiling = budget

    def __bool__(self) -> bool:
        return bool(self._shelves)

    def add(self, tenant: str, entries: Sequence[E]) -> None:
        """Let ``entries``, one at least, wait after those that ``tenant`` has waiting."""
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = _Line(tenant, self._clock)
            heappush(self._turns, (line.served, next(self._order), line))
        if not line.entries:
            line.served = max(line.served, self._clock)
            self._waiting += 1
        for entry in entries:
            entry.line = line
            line.entries[entry] = None
            self._put_on_shelf(line, entry)
        new = sum(entry.tokens for entry in entries)
        line.tokens += new
        self.tokens += new

    def discard(self, entries: Sequence[E]) -> None:
        """Forget those of ``entries`` that still wait."""
        for entry in entries:
            if entry.line is not None:
                self._remove(entry.line, entry)

    def take(self, budget: int) -> list[E]:
        """The next batch: one entry, or up to ``budget`` tokens with padding. One must be waiting."""
        line = self._least_served()
        self._clock = line.served
        self._ceiling = line.served + self._budget
        opening: E = next(iter(line.entries))  # type: ignore[assignment] # a lane's lines hold its entries
        self._remove(line, opening)
        line.served += max(opening.tokens, self._budget // _FLOOR_SHARE)
        batch = [opening]
        self._fill(batch, budget, all_tenants=False)
        self._fill(batch, budget, all_tenants=True)
        if not self._shelves:
            # All that waited was served: nobody is behind anybody.
            self._lines.clear()
            self._turns.clear()
        return batch

    def room(self, tenant: str, limit: int) -> int:
        """How many tokens ``tenant`` may add where ``limit`` may wait in all; a share is left to others."""
        free = limit - self.tokens
        # After it has come in, what it holds is still no more than its share of what is free then.
        return min(free, (TENANT_SHARE * free - self.held(tenant)) // (TENANT_SHARE + 1))

    def held(self, tenant: str) -> int:
        """The tokens that ``tenant`` has waiting."""
        line = self._lines.get(tenant)
        return 0 if line is None else line.tokens

    def ahead(self, tenant: str, tokens: int) -> int:
        """About how many tokens are served until ``tenant`` has had ``tokens`` more than it has waiting."""
        held = self.held(tenant)
        return min(self.tokens, (held + tokens) * (self._waiting + (not held)))

    # -- whose turn it is ---------------------------------------------------------------------------

    def _least_served(self) -> _Line:
        while True:
            served, _, line = self._turns[0]
            if not line.entries:
                # Everybody who waits was served more: its account would start no higher.
                heappop(self._turns)
                del self._lines[line.tenant]
            elif served < line.served:
                heapreplace(self._turns, (line.served, next(self._order), line))
            else:
                return line

    def _fill(self, batch: list[E], budget: int, *, all_tenants: bool) -> None:
        """Add neighbours in length, the nearest first: a nearer one costs less padding."""
        longest = max(entry.tokens for entry in batch)
        for length in self._nearest(batch[0].tokens):
            turns = self._in_turn(length, all_tenants=all_tenants)
            while (width := max(longest, length)) * (len(batch) + 1) <= budget:
                entry = next(turns, None)
                if entry is None:
                    break
                longest = width
                batch.append(entry)
            if longest * (len(batch) + 1) > budget:
                return

    def _nearest(self, length: int) -> Iterator[int]:
        at = bisect_left(self._lengths, length)
        shorter, longer = self._lengths[:at], self._lengths[at:]
        return merge(longer, reversed(shorter), key=lambda other: abs(other - length))

    def _in_turn(self, length: int, *, all_tenants: bool) -> Iterator[E]:
        """Take entries of one length, one of each tenant in turn, oldest first."""
        shelf = self._shelves[length]
        lines = deque(shelf)
        while lines:
            line = lines.popleft()
            fair = line.served < self._ceiling
            if not (fair or all_tenants):
                continue
            entry = next(iter(shelf[line]))
            self._remove(line, entry)
            if fair:
                line.served += length
            if line in shelf:
                shelf.move_to_end(line)
                lines.append(line)
            yield entry

    # -- shelves: entries by length -----------------------------------------------------------------

    def _put_on_shelf(self, line: _Line, entry: E) -> None:
        shelf = self._shelves.get(entry.tokens)
        if shelf is None:
            shelf = self._shelves[entry.tokens] = OrderedDict()
            self._lengths.insert(bisect_left(self._lengths, entry.tokens), entry.tokens)
        own = shelf.get(line)
        if own is None:
            own = shelf[line] = OrderedDict()
        own[entry] = None

    def _remove(self, line: _Line, entry: E) -> None:
        entry.line = None
        del line.entries[entry]
        line.tokens -= entry.tokens
        self.tokens -= entry.tokens
        self._waiting -= not line.entries
        shelf = self._shelves[entry.tokens]
        own = shelf[line]
        del own[entry]
        if not own:
            del shelf[line]
            if not shelf:
                del self._shelves[entry.tokens]
                del self._lengths[bisect_left(self._lengths, entry.tokens)]
