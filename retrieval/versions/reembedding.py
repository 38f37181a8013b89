"""Re-embedding jobs: the texts that a version lacks vectors of, lent to workers, and the vectors they bring.

A job is for a version that is paused: its rebuild then finds every vector ready. Where the rebuild runs
beside its job, both may embed a text that neither has stored yet.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from ragstone.errors import InvalidArgument, SpaceMismatch
from ragstone.types import MissingText, MissingTexts, ParkedText
from retrieval.store.catalog import Catalog
from retrieval.store.values import MissingEmbedding, VersionRow
from retrieval.versions.applier import Sources
from retrieval.versions.collections import Collections
from retrieval.versions.cuts import cut_some
from retrieval.versions.leases import Leases
from retrieval.versions.parts import Cutter, Opener
from retrieval.versions.passages import passage_text
from retrieval.versions.recipe import PinnedRecipe
from retrieval.versions.vectors import first_not_finite

log = structlog.get_logger(__name__)

Position = tuple[int, int]
"""``(seq, key)``: of a chunk, or of a document."""

_START: Final = (0, 0)
_ROWS_AT_ONCE: Final = 512
_RANGE_CHARS: Final = 4_000_000
"""What one range carries at most, however many texts were asked for; a text alone may be longer."""
_CUTS_AT_ONCE: Final = 10
"""How often a call cuts documents before it answers."""
_PARKED_SHOWN: Final = 100


@dataclass(slots=True)
class Job:
    """What is known of the texts that a version lacks."""

    row: VersionRow
    missing: int
    cutter: Cutter | None
    read: Position = _START
    """The last chunk that was looked at; what lies before it is embedded, lent, parked or was given back."""
    cut: Position = _START
    """Documents up to here are cut."""
    expired: int = 0
    """``Leases.expired`` when ``read`` was last at the start."""
    parked: dict[bytes, ParkedText] = field(default_factory=dict)


class Reembedding:
    """Lends texts and takes vectors, for all versions of a server. Belongs to one event loop."""

    def __init__(
        self, *, collections: Collections, catalog: Catalog, sources: Sources, opener: Opener, leases: Leases
    ) -> None:
        self._collections = collections
        self._catalog = catalog
        self._sources = sources
        self._opener = opener
        self._leases = leases
        self._jobs: dict[int, Job] = {}
        self._lending: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def lend(
        self, collection: str, name: str, *, worker: str, max_texts: int, lease_s: float
    ) -> MissingTexts:
        """At most ``max_texts`` distinct texts without a vector, that nobody holds. Raises NotFound.

        Documents that nobody has cut for the version are cut on the way.
        """
        row = await self._version(collection, name)
        # A space's texts are shared by all versions in it: who reads what is missing must not be overtaken.
        async with self._lending[row.space]:
            job = await self._job(row)
            cut = job.cut
            texts, whole = await self._take(job, max_texts)
            lease = self._leases.grant(row.space, worker, texts, lease_s) if texts else None
            done = whole and not texts and not self._leases.held(row.space)
            if done or job.cut != cut:
                # Vectors on their way in may be taken off twice. At the end there are none: it is exact.
                job.missing = await self._count(row)
        if lease is not None:
            log.info("texts_lent", collection=collection, version=name, worker=worker, texts=len(texts))
        return MissingTexts(
            texts=tuple(
                MissingText(text_hash=key, text=passage_text(text.title, text.text))
                for key, text in texts.items()
            ),
            lease="" if lease is None else lease.id,
            lease_s=lease_s,
            space=row.space,
            dim=row.dim,
            embedder=PinnedRecipe.load(row.recipe).public().embedder,
            missing=job.missing,
            parked=len(job.parked),
            done=done,
        )

    async def store(
        self,
        collection: str,
        name: str,
        *,
        space: str,
        lease: str,
        hashes: Sequence[bytes],
        vectors: NDArray[np.float32],
        refused: Mapping[bytes, str],
    ) -> int:
        """Store ``vectors``, float32 ``(len(hashes), dim)``, and park the texts that were refused.

        The lease is renewed. Vectors are taken without one as well: who embedded a text after its lease
        expired has a good vector. Returns about how many texts have no vector yet. Raises NotFound,
        SpaceMismatch, InvalidArgument naming the row; nothing is stored then.
        """
        row = await self._version(collection, name)
        _check(row, space, vectors, count=len(hashes))
        held = self._leases.renew(lease)
        if held is not None and held.space != row.space:
            raise InvalidArgument.at("lease", f"is of texts of the space {held.space!r}, not {row.space!r}")
        await self._sources.embeddings.put_many(row.space, hashes, vectors)
        job = self._jobs.get(row.id)
        if job is None:  # the server was started anew, and nobody has asked for texts since
            return await self._count(row)
        if held is not None:
            job.missing = max(0, job.missing - sum(key in held.texts for key in hashes))
            for key, reason in refused.items():
                self._park(job, held.texts.get(key), reason)
            self._leases.settle(held, [*hashes, *refused])
        return job.missing

    def parked(self, version_id: int) -> tuple[ParkedText, ...]:
        """The first of the texts that workers could not embed, since the server started."""
        job = self._jobs.get(version_id)
        return () if job is None else tuple(job.parked.values())[:_PARKED_SHOWN]

    def forget(self, version_id: int) -> None:
        """The version is gone."""
        self._jobs.pop(version_id, None)

    # -- inside ----------------------------------------------------------------------------------------

    async def _version(self, collection: str, name: str) -> VersionRow:
        return await self._catalog.version(self._collections.get(collection).row.id, name)

    async def _job(self, row: VersionRow) -> Job:
        if row.id not in self._jobs:
            cutter, missing = await self._cutter(row), await self._count(row)
            self._jobs[row.id] = Job(row, missing, cutter, expired=self._leases.expired)
        return self._jobs[row.id]

    async def _count(self, row: VersionRow) -> int:
        return await self._sources.embeddings.count_missing(row.space, row.collection_id, row.chunking)

    async def _cutter(self, row: VersionRow) -> Cutter | None:
        recipe = PinnedRecipe.load(row.recipe)
        if recipe.embedder.kind == "precomputed":
            return None
        return self._opener.cutter(recipe, await self._opener.embedder(recipe.embedder), row.chunking)

    async def _take(self, job: Job, max_texts: int) -> tuple[dict[bytes, MissingEmbedding], bool]:
        """Texts to lend, and whether all of the version was looked through, from start to end."""
        texts: dict[bytes, MissingEmbedding] = {}
        whole = job.read == _START
        for _ in range(_CUTS_AT_ONCE):
            if not await self._read(job, max_texts, texts):
                return texts, False
            if await self._cut(job):
                whole = False  # what was cut may lie before what was read
                continue
            if texts or whole or not self._may_look_again(job):
                return texts, whole
            job.read, job.expired, whole = _START, self._leases.expired, True
        return texts, False

    def _may_look_again(self, job: Job) -> bool:
        """Whether behind ``job.read`` there may be texts to lend: not while others hold all of them."""
        return not self._leases.held(job.row.space) or self._leases.expired != job.expired

    async def _read(self, job: Job, max_texts: int, texts: dict[bytes, MissingEmbedding]) -> bool:
        """Add texts that nobody holds, until there are enough; whether it came to the end before."""
        row, chars = job.row, sum(len(text.text) for text in texts.values())
        while True:
            # Who holds a text has not stored it: looked at before the reading, nothing slips through between.
            held = self._leases.held(row.space)
            page = await self._sources.embeddings.missing(
                row.space, row.collection_id, row.chunking, _ROWS_AT_ONCE, after=job.read
            )
            for found in page:
                if len(texts) >= max_texts or chars >= _RANGE_CHARS:
                    return False
                job.read = found.position
                key = found.text_hash
                if key not in held and key not in texts and key not in job.parked:
                    texts[key] = found
                    chars += len(found.text)
            if len(page) < _ROWS_AT_ONCE:
                return True

    async def _cut(self, job: Job) -> bool:
        """Cut some documents that nobody has cut for the version; whether there were any."""
        row, chunks = job.row, self._sources.chunks
        if job.cutter is None:
            return False
        head = await self._sources.journal.head(row.collection_id)
        where = row.collection_id, row.chunking
        last = await cut_some(chunks, job.cutter, *where, after=job.cut, upto=head)
        job.cut = last or (head + 1, 0)
        return last is not None

    def _park(self, job: Job, text: MissingEmbedding | None, reason: str) -> None:
        if text is not None:
            log.error("text_parked", version=job.row.name, chunk_id=text.chunk_id, reason=reason)
            job.parked[text.text_hash] = ParkedText(chunk_id=text.chunk_id, reason=reason)


def _check(row: VersionRow, space: str, vectors: NDArray[np.float32], *, count: int) -> None:
    if space != row.space:
        raise SpaceMismatch(
            f"version {row.name} is of the space {row.space!r}, the vectors are of {space!r}",
            metadata={"version_space": row.space, "vectors_space": space},
        )
    if count and vectors.shape != (count, row.dim):
        raise InvalidArgument.at(
            "vectors", f"have the shape {vectors.shape}, {count} texts of this space need {(count, row.dim)}"
        )
    for number, vector in enumerate(vectors):
        where = first_not_finite(vector)
        if where is not None:
            raise InvalidArgument.at(
                f"vectors[{number}]", f"is not finite: element {where} is {vector[where]}"
            )
