"""Texts that are longer than the embedder reads: cut and told, or refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from ragstone.errors import InvalidArgument
from ragstone.types import Contexts, Document, Mode, Query, Question, Recipe, Rerank, Truncation

if TYPE_CHECKING:
    from tests.app.conftest import App

LIMIT: Final = 16
FITS: Final = "a lighthouse on the coast"
LONG: Final = "lighthouse " * 30
CUT: Final = Truncation(tokens=32, limit=LIMIT)
"""Of ``LONG``: its words, and a mark on either side."""


@pytest.fixture
async def cutting(app: App) -> App:
    """With ``long``, a collection whose model reads 16 tokens of a text and leaves the rest."""
    return await _with_long(app, too_long="truncate")


@pytest.fixture
async def refusing(app: App) -> App:
    """With ``long``, a collection whose model refuses more than 16 tokens."""
    return await _with_long(app, too_long="error")


async def _with_long(app: App, **options: str) -> App:
    embedder = {"kind": "sentence_transformer", "max_tokens": LIMIT, "workers": 1, **options}
    chunker = {"max_tokens": LIMIT, "overlap_tokens": 4}
    await app.ragstone.create_collection("long", Recipe(embedder=embedder, chunker=chunker))
    await app.upsert(Document(id="1", text=LONG), collection="long")
    return app


async def test_a_search_tells_that_its_text_was_cut_each_time(cutting: App) -> None:
    for _ in range(2):  # the second time the vector is there already
        assert (await cutting.search(Query(text=LONG), "long")).truncation == CUT
    assert (await cutting.search(Query(text=FITS), "long")).truncation is None


async def test_nothing_is_cut_where_nothing_is_embedded(cutting: App) -> None:
    words = Query(text=LONG, mode=Mode.LEXICAL, rerank=Rerank(off=True))
    assert (await cutting.search(words, "long")).truncation is None


async def test_what_reads_only_to_rerank_tells_it_too(cutting: App) -> None:
    result = await cutting.search(Query(text=LONG, mode=Mode.LEXICAL), "long")
    assert (result.degraded, result.truncation) == ((), CUT)


async def test_an_answer_tells_it_with_its_contexts(cutting: App) -> None:
    events = cutting.ragstone.answer("long", Question(query=Query(text=LONG)), tenant="t", deadline_s=10.0)
    [contexts] = [event async for event in events if isinstance(event, Contexts)]
    assert contexts.truncation == CUT


@pytest.mark.parametrize("kind", ["query", "passage"])
async def test_embedding_tells_which_texts_were_cut(cutting: App, kind: str) -> None:
    embedded = await cutting.ragstone.embed("long", [FITS, LONG, FITS], kind=kind, tenant="t")
    assert embedded.truncations == {1: CUT}


async def test_a_search_with_too_long_a_text_is_refused_by_field(refusing: App) -> None:
    with pytest.raises(InvalidArgument, match="32 tokens, and the embedder reads 16") as caught:
        await refusing.search(Query(text=LONG), "long")
    assert [violation.field for violation in caught.value.violations] == ["query.text"]


async def test_each_text_that_is_too_long_to_embed_is_named(refusing: App) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await refusing.ragstone.embed("long", [LONG, FITS, LONG], kind="passage", tenant="t")
    assert [violation.field for violation in caught.value.violations] == ["texts[0]", "texts[2]"]


async def test_passages_that_the_chunker_cut_are_never_too_long(refusing: App) -> None:
    stats = (await refusing.ragstone.get_collection("long")).serving.stats
    assert stats["parked_chunks"] == 0
    assert (await refusing.search(Query(text=FITS, mode=Mode.DENSE), "long")).hits
