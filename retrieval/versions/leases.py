"""Leases of texts: who embeds what, until when. Pure but for its clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from time import monotonic
from uuid import uuid4

from retrieval.store.values import MissingEmbedding


@dataclass(slots=True, kw_only=True)
class Lease:
    """Texts of one space that one worker embeds. ``texts`` are those that it has not brought yet."""

    id: str
    space: str
    worker: str
    seconds: float
    until: float
    texts: dict[bytes, MissingEmbedding]


class Leases:
    """The leases of a server.

    They are in memory alone. A restart forgets them, and then what workers hold at that moment may be lent,
    and so embedded, a second time: at most the leases that were open. A table would cost every range two
    writes to spare that, and this server is the only one that lends.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._open: dict[str, Lease] = {}
        self._held: defaultdict[str, set[bytes]] = defaultdict(set)
        self.expired = 0
        """How many leases have expired with texts left: who has passed those by looks again when it grows."""

    def held(self, space: str) -> Set[bytes]:
        """The texts of ``space`` that are lent now."""
        self._expire()
        return frozenset(self._held[space])

    def grant(
        self, space: str, worker: str, texts: Mapping[bytes, MissingEmbedding], seconds: float
    ) -> Lease:
        """Lend ``texts``, none of which is held."""
        until = self._clock() + seconds
        lease = Lease(
            id=uuid4().hex, space=space, worker=worker, seconds=seconds, until=until, texts=dict(texts)
        )
        self._open[lease.id] = lease
        self._held[space].update(texts)
        return lease

    def renew(self, lease_id: str) -> Lease | None:
        """The lease, for as long again from now on; None when it has expired or was never given."""
        self._expire()
        lease = self._open.get(lease_id)
        if lease is not None:
            lease.until = self._clock() + lease.seconds
        return lease

    def settle(self, lease: Lease, hashes: Iterable[bytes]) -> None:
        """Take ``hashes`` off a lease: they are stored or parked. Its last text ends it."""
        for text_hash in hashes:
            if lease.texts.pop(text_hash, None) is not None:
                self._held[lease.space].discard(text_hash)
        if not lease.texts:
            self._open.pop(lease.id, None)

    def _expire(self) -> None:
        now = self._clock()
        for lease in [lease for lease in self._open.values() if lease.until <= now]:
            del self._open[lease.id]
            self._held[lease.space].difference_update(lease.texts)
            self.expired += 1
