"""Names, metadata and filters that try to become code of a database: they are text, or refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from indexes.filters import Comparison, Op, parse
from ragstone.errors import InvalidArgument, RagstoneError
from ragstone.types import Document, Mode, Query, Recipe
from retrieval.config import Settings
from retrieval.wiring import build
from tests.app.conftest import HASHING, App

HOSTILE: Final = [
    "'; DROP TABLE chunks; --",
    '"; DROP TABLE chunks; --',
    "' OR '1'='1",
    '" OR 1=1 --',
    "') UNION SELECT vector FROM embeddings --",
    "1; SELECT pg_sleep(60)",
    "'||(SELECT version())||'",
    "$1",
    "$$; DELETE FROM documents; $$",
    "%s",
    "%(allow)s",
    "%% %d {} {0} {key}",
    ":collection",
    "?",
    "\\'; DELETE FROM versions; --",
    "\\",
    '\\"',
    "/* */ --",
    "#",
    "`id`",
    "${jndi:ldap://x}",
    "{{7*7}}",
    "../../etc/passwd",
    "a\nb",
    "a\tb",
    "\u202edrop\u202c",
    "＇ OR １＝１",
    "ʼ; DROP TABLE x",
    "NULL",
    "true",
    "-1",
    "1e999",
    "0x27",
    "CHAR(39)",
    "[]",
    '{"$gt": ""}',
    '{"must": [{"key": "x"}]}',
    "document_id = *",
    "AND OR NOT",
    "((((((((",
]
WORDS = "harbour lights at night"


@pytest.fixture(params=["sqlite", "postgresql", "postgresql and pgvector"])
async def hostile(request: pytest.FixtureRequest, tmp_path: Path, settings: Settings) -> AsyncIterator[App]:
    """A collection whose documents are named and tagged with all that is hostile."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres")()
    index = {"kind": "flat"}
    if "pgvector" in request.param:
        store = request.getfixturevalue("postgres_server").create_database()
        index = {"kind": "pgvector", "url": store, "method": "exact"}
    app = App(await build(settings.model_copy(update={"database_url": url})))
    await app.ragstone.create_collection("docs", Recipe(embedder=HASHING, index=index))
    await app.upsert(
        *(
            Document(id=text, text=f"{WORDS} {text}", title=text, metadata={"tag": text, f"x{text}": i})
            for i, text in enumerate(HOSTILE)
        )
    )
    yield app
    await app.close()


def tagged(text: str, field: str = "tag") -> Query:
    return Query(text=WORDS, filter=str(Comparison(field, Op.EQ, text)), k=100, mode=Mode.HYBRID)


async def test_a_filter_for_a_hostile_value_finds_the_document_that_has_it(hostile: App) -> None:
    for text in HOSTILE:
        assert await hostile.found(tagged(text)) == [text]


async def test_a_filter_for_a_hostile_id_finds_the_document_of_that_id(hostile: App) -> None:
    for text in HOSTILE:
        assert await hostile.found(tagged(text, "document_id")) == [text]


async def test_a_filter_on_a_hostile_key_finds_the_document_that_has_the_key(hostile: App) -> None:
    for i, text in enumerate(HOSTILE):
        query = Query(text=WORDS, filter=str(Comparison(f"x{text}", Op.EQ, i)), k=100)
        assert await hostile.found(query) == [text]


async def test_hostile_text_as_a_whole_filter_is_refused_or_matches_nothing(
    hostile: App,
) -> None:
    for text in HOSTILE:
        try:
            found = await hostile.found(Query(text=WORDS, filter=text, k=100))
        except InvalidArgument:
            continue
        assert found == []


async def test_hostile_queries_are_words(hostile: App) -> None:
    for text in HOSTILE:
        assert len(await hostile.found(Query(text=f"{WORDS} {text}", k=100))) == len(HOSTILE)


async def test_a_document_is_deleted_by_its_hostile_id_or_value_and_no_other_is(hostile: App) -> None:
    left = set(HOSTILE)
    for i, text in enumerate(HOSTILE):
        if i % 2:
            await hostile.delete(text)
        else:
            await hostile.delete(where=str(Comparison("tag", Op.EQ, text)))
        left.discard(text)
        assert set(await hostile.found(Query(text=WORDS, k=100))) == left


async def test_hostile_names_of_collections_are_refused_or_are_names(hostile: App) -> None:
    for text in HOSTILE:
        try:
            await hostile.ragstone.create_collection(text, Recipe(embedder=HASHING, index={"kind": "flat"}))
        except RagstoneError:
            continue
        await hostile.upsert(Document(id="only", text=WORDS), collection=text)
        assert await hostile.found(Query(text=WORDS), text) == ["only"]
        await hostile.ragstone.delete_collection(text)
    assert len(await hostile.found(Query(text=WORDS, k=100))) == len(HOSTILE)


@examples(deadline=None, max_examples=200)
@given(text=st.text(max_size=40))
def test_any_text_stays_itself_in_a_filter(text: str) -> None:
    assert parse(str(Comparison("tag", Op.EQ, text))) == Comparison("tag", Op.EQ, text)
