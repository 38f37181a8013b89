"""A real database on disk for every test, and short ways to write documents."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from retrieval.store.catalog import Catalog, CollectionRow
from retrieval.store.database import Database
from retrieval.store.journal import ChunkDraft, Committed, DocumentDraft, Journal

Drafter = Callable[..., DocumentDraft]
Put = Callable[..., Awaitable[Committed]]


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'catalog.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return cast("str", request.getfixturevalue("sqlite_url"))
    return cast("str", request.getfixturevalue("postgres")())


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    """An open database."""
    database = await Database.open(url)
    yield database
    await database.close()


@pytest.fixture
async def collection(db: Database) -> CollectionRow:
    """An empty collection with the chunking ``lines`` and the space ``s2``, of two dimensions."""
    return await Catalog(db).create("books", recipe="{}", space="s2", dim=2, chunking="lines")


@pytest.fixture
def draft() -> Drafter:
    """``draft(id, text)``: a document whose chunks are the lines of its text."""

    def make(name: str, text: str, *, title: str = "", metadata_json: str = "{}") -> DocumentDraft:
        chunks: list[ChunkDraft] = []
        start = 0
        for ordinal, line in enumerate(text.split("\n")):
            end = start + len(line)
            text_hash = hashlib.sha256(line.encode()).digest()
            chunks.append(
                ChunkDraft(
                    chunk_id=f"{name}#{ordinal}",
                    ordinal=ordinal,
                    start=start,
                    end=end,
                    context_start=max(0, start - 4),
                    context_end=min(len(text), end + 4),
                    text=line,
                    text_hash=text_hash,
                    vector=np.array([len(line), ordinal], dtype="<f4").tobytes(),
                )
            )
            start = end + 1
        content = "\0".join((title, text, metadata_json))
        return DocumentDraft(
            id=name,
            title=title,
            text=text,
            language="en",
            metadata_json=metadata_json,
            content_hash=hashlib.sha256(content.encode()).digest(),
            chunks=chunks,
        )

    return make


@pytest.fixture
def put(db: Database, collection: CollectionRow) -> Put:
    """``put(*drafts)``: upsert into the collection."""

    async def upsert(
        *drafts: DocumentDraft, request_id: str | None = None, tenant: str = "t", fingerprint: str = "f"
    ) -> Committed:
        return await Journal(db).upsert(
            collection.id,
            "lines",
            "s2",
            drafts,
            request_id=request_id,
            tenant=tenant,
            fingerprint=fingerprint,
        )

    return upsert
