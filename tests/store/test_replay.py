"""A follower that starts anywhere, stops anywhere and comes back ends with exactly the live chunks; one
that never falls behind holds, at every position, as many as the catalog counts there."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from retrieval.store.catalog import Catalog
from retrieval.store.chunks import Chunks
from retrieval.store.database import Database
from retrieval.store.journal import ChunkDraft, DocumentDraft, Journal

Held = dict[int, tuple[str, str]]
"""What a follower holds: key -> (document id, text)."""

IDS = st.sampled_from("abcd")
WRITES = st.lists(
    st.one_of(
        st.dictionaries(IDS, st.lists(st.sampled_from("xyz"), max_size=3).map(tuple), min_size=1),
        st.sets(IDS, min_size=1).map(frozenset),
        # How many steps of one read a follower applies before it stops.
        st.integers(1, 3),
    ),
    max_size=12,
)


def document(name: str, texts: tuple[str, ...]) -> DocumentDraft:
    """A document with the given texts as its chunks."""
    chunks = [
        ChunkDraft(
            chunk_id=f"{name}#{ordinal}",
            ordinal=ordinal,
            start=ordinal,
            end=ordinal + 1,
            context_start=0,
            context_end=len(texts),
            text=text,
            text_hash=hashlib.sha256(text.encode()).digest(),
        )
        for ordinal, text in enumerate(texts)
    ]
    text = "".join(texts)
    return DocumentDraft(
        id=name,
        title="",
        text=text,
        language="",
        metadata_json="{}",
        content_hash=text.encode(),
        chunks=chunks,
    )


class Follower:
    """Holds what the journal tells it."""

    def __init__(self, journal: Journal, collection_id: int) -> None:
        self._journal = journal
        self._collection_id = collection_id
        self.seq = 0
        self.held: Held = {}
        self.counts = {0: 0}
        """How many it held at each position."""

    async def advance(self, *, steps: int, limit: int) -> bool:
        """Apply at most ``steps`` steps of one read; False when there was nothing to read."""
        read = await self._journal.read(self._collection_id, "c", after=self.seq, limit_chunks=limit)
        for step in read[:steps]:
            assert step.seq > self.seq
            for key in step.deleted:
                self.held.pop(key, None)
            for row in step.added:
                assert row.key not in self.held
                self.held[row.key] = (row.document_id, row.text)
                assert row.text in row.context
            self.seq = step.seq
            self.counts[step.seq] = len(self.held)
        return bool(read)

    def texts(self) -> list[tuple[str, str]]:
        return sorted(self.held.values())


def live(model: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return sorted((name, text) for name, texts in model.items() for text in texts)


async def replay(path: Path, writes: list[object], limit: int) -> None:
    db = await Database.open(f"sqlite:///{path / 'catalog.db'}")
    collection = await Catalog(db).create("a", recipe="{}", space="s", dim=1, chunking="c")
    journal = Journal(db)
    follower, up_to_date = Follower(journal, collection.id), Follower(journal, collection.id)
    model: dict[str, tuple[str, ...]] = {}
    for write in writes:
        match write:
            case int(steps):
                await follower.advance(steps=steps, limit=limit)
            case dict(documents):
                drafts = [document(name, texts) for name, texts in documents.items()]
                await journal.upsert(
                    collection.id, "c", "s", drafts, request_id=None, tenant="t", fingerprint="f"
                )
                model |= documents
            case frozenset(ids):
                await journal.delete(collection.id, sorted(ids), request_id=None, tenant="t", fingerprint="f")
                model = {name: texts for name, texts in model.items() if name not in ids}
        while await up_to_date.advance(steps=1, limit=limit):
            pass
    for reader in (follower, Follower(journal, collection.id)):
        while await reader.advance(steps=1, limit=limit):
            pass
        assert reader.texts() == live(model)
        assert reader.seq == await journal.head(collection.id)
    counted = await Chunks(db).live_at(collection.id, "c", list(up_to_date.counts))
    assert counted == list(up_to_date.counts.values())
    await db.close()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(writes=WRITES, limit=st.integers(1, 4))
def test_every_replay_converges_to_the_live_chunks(writes: list[object], limit: int) -> None:
    with tempfile.TemporaryDirectory() as path:
        asyncio.run(replay(Path(path), writes, limit))
