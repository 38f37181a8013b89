"""Keys become chunks. A key's chunk never changes, so what was read once stays true."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from indexes.metadata import decode_metadata
from ragstone.types import Metadata
from retrieval.store.documents import Documents


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A chunk, ready to be shown."""

    chunk_id: str
    document_id: str
    text: str
    title: str
    metadata: Metadata
    start: int
    end: int


class Hydrator:
    """Chunks by key, through a cache bounded by characters of text."""

    def __init__(self, documents: Documents, *, max_chars: int = 128 * 2**20) -> None:
        self._documents = documents
        self._cache: LRUCache[int, Passage] = LRUCache(max_chars, getsizeof=_size)

    async def passages(self, keys: Sequence[int]) -> dict[int, Passage]:
        """The chunks of ``keys``; a key whose chunk was deleted and pruned is left out."""
        found = {key: passage for key in keys if (passage := self._cache.get(key)) is not None}
        missing = [key for key in keys if key not in found]
        if missing:
            rows = await self._documents.chunks(missing)
            for key, row in rows.items():
                passage = Passage(
                    chunk_id=row.chunk_id,
                    document_id=row.document_id,
                    text=row.text,
                    title=row.title,
                    metadata=decode_metadata(row.metadata_json),
                    start=row.start,
                    end=row.end,
                )
                found[key] = passage
                if _size(passage) <= self._cache.maxsize:
                    self._cache[key] = passage
        return found


def _size(passage: Passage) -> int:
    return 512 + len(passage.text) + len(passage.title)
