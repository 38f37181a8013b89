"""In which order passages stand in a prompt, and which replica gets it, so that its prefix cache is reused.

A model server keeps the keys and values of prompts that it has read, in blocks of tokens; a block is found
again only when all that stands before it is the same too (vLLM's automatic prefix caching: every block's
hash contains its predecessor's). Questions that find the same passages in different order therefore share
nothing but the head. Here a tree of the sequences that were sent to a replica stands for its cache, as in
RAGCache (Jin et al. 2024), and a request's passages follow the longest path that is still in it, as in
CacheWeaver (2026). The rest follow by how often they were sent of late together with those placed before
them, the order of an FP-tree (Han et al. 2000), in which sets that overlap share long prefixes. All this
within a bound on how far a passage may move from its rank.

Pure: no clock, no chance, no I/O; the same calls give the same orders. Not safe for use by several threads.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from ragstone.errors import InvalidArgument

_MAX_VISITS: Final = 512
"""Nodes looked at for one order."""
_REMEMBERED_PROMPTS: Final = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderingOptions:
    """Raises InvalidArgument for sizes that cannot work."""

    capacity_tokens: int
    """What the replica's cache holds: vLLM's ``num_gpu_blocks`` times its block size."""
    block_size: int = 16
    """The replica's, in tokens: reuse counts in whole blocks."""
    max_displacement: int = 4
    """How many places a passage may stand before or behind its rank; 0 keeps the order of retrieval."""
    lead_within: int = 3
    """The best passage is one of the first so many."""

    def __post_init__(self) -> None:
        for name, least in (
            ("capacity_tokens", 1),
            ("block_size", 1),
            ("max_displacement", 0),
            ("lead_within", 1),
        ):
            if getattr(self, name) < least:
                raise InvalidArgument.at(name, f"must be at least {least}, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passages:
    """What one prompt is made of, best passage first.

    Raises InvalidArgument where ``keys`` and ``tokens`` differ in length or a count is negative.
    """

    keys: Sequence[str]
    """A digest of each passage's text exactly as it is sent."""
    tokens: Sequence[int]
    """How many tokens each takes."""
    head_tokens: int = 0
    """Of the text before the passages, the same for all prompts of a scope."""
    scope: str = ""
    """The cache salt and a digest of the head: prompts of different scopes share nothing."""

    def __post_init__(self) -> None:
        if len(self.keys) != len(self.tokens):
            raise InvalidArgument.at("tokens", f"{len(self.tokens)} counts for {len(self.keys)} passages")
        if min(self.head_tokens, *self.tokens, 0) < 0:
            raise InvalidArgument.at("tokens", "must not be negative")

    def ordered(self, order: Sequence[int]) -> Passages:
        """The same in another order."""
        return Passages(
            keys=[self.keys[index] for index in order],
            tokens=[self.tokens[index] for index in order],
            head_tokens=self.head_tokens,
            scope=self.scope,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a prompt goes, in which order its passages stand there, and what is expected from the cache."""

    replica: str
    order: Sequence[int]
    """Indexes into the passages given."""
    reusable_tokens: int


class PrefixOrderer:
    """The orders for one replica of a model.

    ``order`` then ``sent`` is a request; an order that was never sent leaves no trace.
    """

    def __init__(self, options: OrderingOptions) -> None:
        self._options = options
        self._tree = _PrefixTree(options.capacity_tokens)
        self._recent = _RecentPrompts()

    @property
    def held_tokens(self) -> int:
        """How much is remembered; at most ``capacity_tokens``."""
        return self._tree.held_tokens

    def order(self, passages: Passages) -> list[int]:
        """The indexes of all passages, in the order in which they shall stand.

        None stands more than ``max_displacement`` places from its rank, and the best one is among the first
        ``lead_within``. No order within those bounds that was looked at reuses more whole blocks, and the
        order of retrieval is always looked at; of equal ones the first is taken, the best passages foremost.
        """
        places = _Places(len(passages.keys), self._options)
        held = self._recent.holders(passages)
        alike = _RecentPrompts.ALL
        path = iter(self._longest_path(passages, places))
        while not places.full:
            index = next(path, None)
            if index is None:
                index = max(
                    places.open(),
                    key=lambda one: ((alike & held[one]).bit_count(), held[one].bit_count(), -one),
                )
            places.take(index)
            alike = alike & held[index] or alike
        return list(places.taken)

    def reusable_tokens(self, passages: Passages) -> int:
        """How many tokens of a prompt with the passages in this order are in the cache: whole blocks."""
        node = self._tree.scope(passages.scope)
        if node is None:
            return 0
        tokens = passages.head_tokens
        for key, count in zip(passages.keys, passages.tokens, strict=True):
            node = node.children.get(key)
            if node is None:
                break
            tokens += count
        return self._whole_blocks(tokens)

    def sent(self, passages: Passages) -> None:
        """Remember that the passages were sent in this order, and forget what was longest unused for it."""
        self._tree.add(passages)
        self._recent.add(passages)

    def _whole_blocks(self, tokens: int) -> int:
        return tokens - tokens % self._options.block_size

    def _longest_path(self, passages: Passages, places: _Places) -> list[int]:
        """Depth first from the head, best passage first: the order of retrieval is the first path tried."""
        root = self._tree.scope(passages.scope)
        best: list[int] = []
        if root is None:
            return best
        most = self._whole_blocks(passages.head_tokens)
        pending = [(root, places, passages.head_tokens)]
        for _ in range(_MAX_VISITS):
            if not pending:
                break
            node, reached, tokens = pending.pop()
            if self._whole_blocks(tokens) > most:
                most, best = self._whole_blocks(tokens), list(reached.taken)
            for index in reversed(list(reached.open())):
                child = node.children.get(passages.keys[index])
                if child is not None:
                    pending.append((child, reached.with_taken(index), tokens + passages.tokens[index]))
        return best


class Replicas:
    """Sends prompts to the replica whose cache serves most of them, unless it has more than its share to do.

    No replica is chosen whose requests would exceed ``1 + slack`` times the mean: consistent hashing with
    bounded loads (Mirrokni et al. 2018). Where no cache knows the passages, sets that overlap tend to the
    same replica: they agree in their smallest hash with the probability of their Jaccard similarity (Broder
    1997), and that hash picks the replica by rendezvous (Thaler and Ravishankar 1998).
    """

    def __init__(self, options: Mapping[str, OrderingOptions], *, slack: float = 0.25) -> None:
        if not options:
            raise InvalidArgument.at("replicas", "must be at least one")
        if slack < 0:
            raise InvalidArgument.at("slack", f"must not be negative, but is {slack}")
        self._orderers = {name: PrefixOrderer(options[name]) for name in sorted(options)}
        self._slack = slack

    def place(
        self, passages: Passages, in_flight: Mapping[str, int], *, down: Collection[str] = ()
    ) -> Placement:
        """The replica and the order for one prompt.

        ``in_flight`` is how many requests each replica is at work on, 0 where it names none. Replicas that
        are ``down`` are passed over, unless all are.
        """
        among = [name for name in self._orderers if name not in down] or list(self._orderers)
        loads = {name: in_flight.get(name, 0) for name in among}
        bound = max((1 + self._slack) * (sum(loads.values()) + 1) / len(loads), min(loads.values()) + 1)
        affinity = min((_digest(key) for key in passages.keys), default=b"")
        placements = [self._placement(name, passages) for name in among if loads[name] + 1 <= bound]
        return max(placements, key=lambda one: (one.reusable_tokens, _digest(one.replica, affinity)))

    def sent(self, placement: Placement, passages: Passages) -> None:
        """Remember that ``passages``, as given to ``place``, went where the placement says."""
        self._orderers[placement.replica].sent(passages.ordered(placement.order))

    def _placement(self, name: str, passages: Passages) -> Placement:
        orderer = self._orderers[name]
        order = orderer.order(passages)
        reusable = orderer.reusable_tokens(passages.ordered(order))
        return Placement(replica=name, order=order, reusable_tokens=reusable)


class _Places:
    """A prompt's places, filled from the first on, so that no bound is broken and none will have to be."""

    __slots__ = ("_left", "_options", "taken")

    def __init__(
        self,
        count: int,
        options: OrderingOptions,
        taken: tuple[int, ...] = (),
        left: tuple[int, ...] | None = None,
    ) -> None:
        self.taken = taken
        self._left = tuple(range(count)) if left is None else left
        self._options = options

    @property
    def full(self) -> bool:
        return not self._left

    def open(self) -> Iterator[int]:
        """The passages that may have the next place, best first.

        When one goes ahead, all better ones that are left move a place back: the first whose last place
        that would pass it ends the choice. Last places ascend with rank, so the rest always find theirs.
        """
        place = len(self.taken)
        for behind, index in enumerate(self._left):
            if index - place > self._options.max_displacement:
                return
            yield index
            if place + behind + 1 > self._last_place(index):
                return

    def take(self, index: int) -> None:
        self.taken = (*self.taken, index)
        self._left = tuple(other for other in self._left if other != index)

    def with_taken(self, index: int) -> _Places:
        places = _Places(0, self._options, self.taken, self._left)
        places.take(index)
        return places

    def _last_place(self, index: int) -> int:
        last = index + self._options.max_displacement
        return min(last, self._options.lead_within - 1) if index == 0 else last


@dataclass(slots=True, eq=False)
class _Node:
    key: str
    tokens: int
    parent: _Node | None
    children: dict[str, _Node] = field(default_factory=dict)


class _PrefixTree:
    """The sequences sent last, as a tree below a node for each scope, of at most ``capacity`` tokens."""

    def __init__(self, capacity: int) -> None:
        self.held_tokens = 0
        self._capacity = capacity
        self._scopes: dict[str, _Node] = {}
        # Longest unused first. A node is used with all its ancestors and put in after its children, so the
        # first one is always a leaf: the cache, too, loses the end of a prompt before its beginning.
        self._by_use: OrderedDict[_Node, None] = OrderedDict()

    def scope(self, scope: str) -> _Node | None:
        return self._scopes.get(scope)

    def add(self, passages: Passages) -> None:
        path = list(self._path(passages))
        for node in reversed(path):
            self._by_use[node] = None
            self._by_use.move_to_end(node)
        while self.held_tokens > self._capacity:
            self._drop(next(iter(self._by_use)))

    def _path(self, passages: Passages) -> Iterator[_Node]:
        node = self._enter(self._scopes, passages.scope, passages.head_tokens, None)
        yield node
        for key, tokens in zip(passages.keys, passages.tokens, strict=True):
            node = self._enter(node.children, key, tokens, node)
            yield node

    def _enter(self, siblings: dict[str, _Node], key: str, tokens: int, parent: _Node | None) -> _Node:
        node = siblings.get(key)
        if node is None:
            node = siblings[key] = _Node(key, tokens, parent)
            self.held_tokens += tokens
        return node

    def _drop(self, leaf: _Node) -> None:
        siblings = self._scopes if leaf.parent is None else leaf.parent.children
        del siblings[leaf.key]
        del self._by_use[leaf]
        self.held_tokens -= leaf.tokens


class _RecentPrompts:
    """Which of the last prompts held a passage, a bit for each: what was sent together is found by ``&``."""

    ALL: Final = (1 << _REMEMBERED_PROMPTS) - 1

    def __init__(self) -> None:
        self._holders: dict[tuple[str, str], int] = {}
        self._prompts: deque[list[tuple[str, str]]] = deque()
        self._next = 0

    def holders(self, passages: Passages) -> list[int]:
        return [self._holders.get((passages.scope, key), 0) for key in passages.keys]

    def add(self, passages: Passages) -> None:
        bit = 1 << self._next
        self._next = (self._next + 1) % _REMEMBERED_PROMPTS
        if len(self._prompts) == _REMEMBERED_PROMPTS:
            self._forget_oldest(bit)
        keys = [(passages.scope, key) for key in dict.fromkeys(passages.keys)]
        self._prompts.append(keys)
        for key in keys:
            self._holders[key] = self._holders.get(key, 0) | bit

    def _forget_oldest(self, bit: int) -> None:
        for key in self._prompts.popleft():
            self._holders[key] &= ~bit
            if not self._holders[key]:
                del self._holders[key]


def _digest(text: str, seed: bytes = b"") -> bytes:
    return blake2b(text.encode() + seed, digest_size=8).digest()
