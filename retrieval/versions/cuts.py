"""Documents that nobody has cut for a chunking yet, cut some at a time."""

from __future__ import annotations

import asyncio
from typing import Final

from retrieval.store.chunks import Chunks
from retrieval.versions.parts import Cutter

DOCUMENTS_AT_ONCE: Final = 200


async def cut_some(
    chunks: Chunks,
    cutter: Cutter,
    collection_id: int,
    chunking: str,
    *,
    after: tuple[int, int],
    upto: int,
) -> tuple[int, int] | None:
    """Cut the next documents written at or before ``upto``; the last one's position, None if there are none.

    Positions are ``(seq, key)``. Whoever else cuts for the same chunking meanwhile does no harm.
    """
    documents = await chunks.uncut(collection_id, chunking, after=after, upto=upto, limit=DOCUMENTS_AT_ONCE)
    if not documents:
        return None
    cuts = await asyncio.to_thread(
        lambda: [(row, cutter.cut(row.id, row.title, row.text)) for row in documents]
    )
    await chunks.add(collection_id, chunking, cuts)
    return documents[-1].seq, documents[-1].key
