"""What every ``LexicalIndex`` must do, as checks that any test runner can call.

A check gets an ``Opener``: it opens the index in one place, empty the first time; called again after
``close`` it opens the same one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from pyroaring import BitMap64

from indexes.base import LexicalIndex, Multilingual, Neighbours, TextBatch

Opener: TypeAlias = Callable[[], Awaitable[LexicalIndex]]
Check: TypeAlias = Callable[[Opener], Awaitable[None]]

ENGLISH: Final = (
    "The heart pumps blood through the arteries into every organ of the body.",
    "Veins carry the blood back to the heart, where it is pumped into the lungs.",
    "A violin has four strings that are bowed, or plucked with a finger.",
    "The orchestra tuned its violins before the conductor raised his hand.",
    "Volcanoes erupt when molten rock rises through the crust of the earth.",
    "Earthquakes shake the crust; their waves tell us what lies beneath it.",
)

LANGUAGES: Final[Mapping[str, tuple[str, str]]] = {
    "ar": ("يضخ القلب الدم عبر الشرايين إلى جميع أعضاء الجسم.", "كيف يضخ القلب الدم؟"),
    "de": ("Das Herz pumpt Blut durch die Arterien in alle Organe des Körpers.", "Was pumpt das Herz?"),
    "el": ("Η καρδιά αντλεί αίμα μέσω των αρτηριών σε όλα τα όργανα του σώματος.", "Τι αντλεί η καρδιά;"),
    "en": ("The heart pumps blood through the arteries into every organ.", "What does the heart pump?"),
    "hi": ("हृदय धमनियों के माध्यम से शरीर के सभी अंगों में रक्त पंप करता है।", "हृदय क्या पंप करता है?"),
    "ja": ("心臓は動脈を通して全身の臓器に血液を送り出します。", "心臓は何を送り出しますか。"),
    "ru": ("Сердце перекачивает кровь по артериям ко всем органам тела.", "Что перекачивает сердце?"),
    "th": ("หัวใจสูบฉีดเลือดผ่านหลอดเลือดแดงไปยังอวัยวะทุกส่วนของร่างกาย", "หัวใจสูบฉีดอะไร"),
    "tr": ("Kalp, kanı atardamarlar yoluyla vücudun bütün organlarına pompalar.", "Kalp neyi pompalar?"),
    "zh": ("心脏通过动脉将血液输送到身体的所有器官。", "心脏输送什么？"),
}
"""Language -> a document about the heart, and a question that it answers."""

ODD_QUERIES: Final = (
    "",
    " \t\n",
    "the of and to",
    "🫀🎻🌋",
    "\x00\x01\x1f\x7f\u200b\u202e\ufeff",
    "\ud800",
    'heart AND ("blood OR -violin~2^3 +lungs [a TO z] terms:* key:1 /.*/ \\ {!} <>',
    "_____ : :: en:heart",
    "heart " * 10_000,
    " ".join(f"word{n}" for n in range(10_000)),
    "x" * 100_000,
    "心" * 10_000,
)


async def an_empty_index_finds_nothing(opener: Opener) -> None:
    """Nothing applied: position 0, no hits, only padding."""
    index = await opener()
    found = await index.search("heart", 3)
    assert index.applied_seq == 0
    assert found.keys.tolist() == [[-1, -1, -1]]
    assert np.isneginf(found.scores).all()
    assert index.stats().live == 0
    await index.close()


async def a_search_finds_what_was_applied(opener: Opener) -> None:
    """Hits are the documents with a term of the query, best first, of the declared types."""
    index = await _filled(opener)
    found = await index.search("strings of a violin", 4)
    assert hits(found) == [2, 3]
    assert found.keys.dtype == np.int64
    assert found.scores.dtype == np.float32
    assert found.keys.shape == found.scores.shape == (1, 4)
    assert found.scores[0, 0] > found.scores[0, 1] > 0
    assert index.stats().live == len(ENGLISH)
    await index.close()


async def k_beyond_all_documents_is_padded(opener: Opener) -> None:
    """Rows are always ``k`` long."""
    index = await _filled(opener)
    found = await index.search("blood", 1_000)
    assert sorted(hits(found)) == [0, 1]
    assert found.keys.shape == (1, 1_000)
    assert (found.keys[0, 2:] == -1).all()
    assert np.isneginf(found.scores[0, 2:]).all()
    await index.close()


async def any_text_is_a_valid_query(opener: Opener) -> None:
    """No text is refused, whatever it holds; the next search works as ever."""
    index = await _filled(opener)
    for query in ODD_QUERIES:
        for language in (None, "en", "zh", "xx"):
            found = await index.search(query, 3, language=language)
            assert found.keys.shape == (1, 3)
            assert np.isfinite(found.scores[found.keys >= 0]).all()
    assert hits(await index.search("volcanoes", 1)) == [4]
    await index.close()


async def any_text_is_a_valid_document(opener: Opener) -> None:
    """Odd texts are stored, counted and deleted like others."""
    index = await opener()
    keys = range(len(ODD_QUERIES))
    await index.apply(batch(dict(zip(keys, ODD_QUERIES, strict=True))), seq=1)
    assert index.stats().live == len(ODD_QUERIES)
    assert hits(await index.search("violin lungs", 1)) == [6]
    await index.apply(batch({}, deleted=keys), seq=2)
    assert index.stats().live == 0
    await index.close()


async def ties_order_by_ascending_key(opener: Opener) -> None:
    """Equal scores, in one batch or in many, order by key; also where ``k`` cuts through them."""
    index = await opener()
    for seq, key in enumerate((70, 10, 40, 30, 60, 20, 50), start=1):
        await index.apply(batch({key: "a violin", key + 1: "a violin"}), seq=seq)
    everything = sorted(each for key in range(10, 80, 10) for each in (key, key + 1))
    for k in (1, 5, 13, 14):
        assert hits(await index.search("violin", k)) == everything[:k]
    await index.close()


async def applying_twice_changes_nothing(opener: Opener) -> None:
    """A batch at or before the applied position is not looked at."""
    index = await _filled(opener)
    await index.apply(batch({99: "another violin"}, deleted=[2]), seq=1)
    await index.apply(batch({99: "another violin"}, deleted=[2]), seq=0)
    assert index.applied_seq == 1
    assert sorted(hits(await index.search("violin", 9))) == [2, 3]
    await index.close()


async def a_delete_is_visible_at_once(opener: Opener) -> None:
    """A deleted key is gone when ``apply`` returns; deleting what is not there does no harm."""
    index = await _filled(opener)
    await index.apply(batch({}, deleted=[2, 12_345]), seq=2)
    assert hits(await index.search("violin", 9)) == [3]
    assert index.stats().live == len(ENGLISH) - 1
    await index.close()


async def a_replaced_text_is_found_under_its_new_key_only(opener: Opener) -> None:
    """One batch deletes the old key and adds the new one."""
    index = await _filled(opener)
    await index.apply(batch({50: ENGLISH[2]}, deleted=[2]), seq=2)
    assert sorted(hits(await index.search("violin", 9))) == [3, 50]
    await index.apply(batch({51: ENGLISH[2]}, deleted=[50]), seq=3)
    assert sorted(hits(await index.search("violin", 9))) == [3, 51]
    assert index.stats().live == len(ENGLISH)
    await index.close()


async def an_empty_batch_moves_the_position(opener: Opener) -> None:
    """A journal position without text is applied like any other."""
    index = await _filled(opener)
    await index.apply(batch({}), seq=7)
    assert index.applied_seq == 7
    assert hits(await index.search("volcanoes", 9)) == [4]
    await index.close()


async def a_filter_equals_brute_force(opener: Opener) -> None:
    """``allow`` leaves the scores as they are and takes away keys, however many it names."""
    index = await opener()
    texts = {key: f"{'violin ' * (1 + key % 7)}{'heart ' * (key % 5)}number{key}" for key in range(400)}
    await index.apply(batch(texts), seq=1)
    ranking = await index.search("violin heart number7", 400)
    for step in (1, 2, 3, 17, 101, 399):
        allow = BitMap64(range(0, 400, step)) | BitMap64([9_999])
        expected = [key for key in hits(ranking) if key in allow]
        for k in (1, 10, 400):
            assert hits(await index.search("violin heart number7", k, allow=allow)) == expected[:k]
    assert hits(await index.search("violin", 5, allow=BitMap64())) == []
    assert hits(await index.search("violin", 5, allow=BitMap64([9_999]))) == []
    await index.close()


async def reopened_it_answers_the_same(opener: Opener) -> None:
    """After a checkpoint and a close, position and answers are as they were."""
    index = await _filled(opener)
    await index.apply(batch({60: "violin and heart"}, deleted=[1]), seq=5)
    before = await index.search("violin heart blood", 9)
    assert await index.checkpoint() == 5
    await index.close()
    reopened = await opener()
    after = await reopened.search("violin heart blood", 9)
    assert reopened.applied_seq == 5
    assert hits(after) == hits(before)
    np.testing.assert_allclose(after.scores, before.scores, rtol=1e-6)
    await reopened.apply(batch({61: "The violins are played in the concert hall."}), seq=6)
    assert 61 in hits(await reopened.search("violin", 9))
    await reopened.close()


async def each_language_finds_its_own(opener: Opener) -> None:
    """In one index with many languages, a question finds the text of its own language first."""
    index = await opener()
    keys = {language: key for key, language in enumerate(LANGUAGES)}
    await index.apply(batch({keys[each]: text for each, (text, _) in LANGUAGES.items()}), seq=1)
    for language, (_, question) in LANGUAGES.items():
        assert hits(await index.search(question, 1)) == [keys[language]], language
        assert hits(await index.search(question, 1, language=language)) == [keys[language]], language
    await index.close()


async def a_wrong_language_hint_still_finds(opener: Opener) -> None:
    """A hint that names no language of the index is as good as none."""
    index = await _filled(opener)
    for language in ("fr", "zh", "not a language"):
        assert sorted(hits(await index.search("violins", 9, language=language))) == [2, 3]
    await index.close()


async def searches_during_an_apply_see_a_whole_batch(opener: Opener) -> None:
    """While a batch is applied, a search sees all of it or none of it."""
    index = await _filled(opener)
    size = 500
    applying = asyncio.ensure_future(
        index.apply(batch(dict.fromkeys(range(1_000, 1_000 + size), "an unheard melody")), seq=2)
    )
    seen = set()
    while not applying.done():
        seen.add(len(hits(await index.search("unheard", size))))
    await applying
    assert seen <= {0, size}
    assert len(hits(await index.search("unheard", size))) == size
    await index.close()


async def a_cancelled_search_leaves_it_usable(opener: Opener) -> None:
    """Cancelling many searches neither blocks nor breaks the next one."""
    index = await _filled(opener)
    searches = [asyncio.ensure_future(index.search("heart blood", 5)) for _ in range(50)]
    await asyncio.sleep(0)
    for each in searches:
        each.cancel()
    await asyncio.gather(*searches, return_exceptions=True)
    assert hits(await index.search("volcanoes", 5)) == [4]
    await index.close()


async def a_cancelled_apply_happens_wholly_or_not(opener: Opener) -> None:
    """After a cancelled ``apply`` the same batch can be applied again, and nothing is there twice."""
    index = await _filled(opener)
    more = batch(dict.fromkeys(range(100, 200), "an unheard melody"))
    applying = asyncio.ensure_future(index.apply(more, seq=2))
    await asyncio.sleep(0)
    applying.cancel()
    await asyncio.gather(applying, return_exceptions=True)
    await index.apply(more, seq=2)
    assert hits(await index.search("unheard", 300)) == list(range(100, 200))
    await index.close()


async def a_query_is_in_a_language_that_the_texts_are_in(opener: Opener) -> None:
    """The likeliest of them, or the one that the caller names; nobody can tell while there is no text."""
    index = await opener()
    assert isinstance(index, Multilingual)
    assert index.language_of("What does the heart pump?", None) == ""
    texts = [text for text, _ in LANGUAGES.values()]
    await index.apply(batch(dict(enumerate(texts))), seq=1)
    for language, (_, question) in LANGUAGES.items():
        assert index.language_of(question, None) == language
    assert index.language_of("Was pumpt das Herz?", "en-GB") == "en"
    await index.close()


LEXICAL_INDEX_CHECKS: Final[tuple[Check, ...]] = (
    an_empty_index_finds_nothing,
    a_search_finds_what_was_applied,
    k_beyond_all_documents_is_padded,
    any_text_is_a_valid_query,
    any_text_is_a_valid_document,
    ties_order_by_ascending_key,
    applying_twice_changes_nothing,
    a_delete_is_visible_at_once,
    a_replaced_text_is_found_under_its_new_key_only,
    an_empty_batch_moves_the_position,
    a_filter_equals_brute_force,
    reopened_it_answers_the_same,
    each_language_finds_its_own,
    a_wrong_language_hint_still_finds,
    searches_during_an_apply_see_a_whole_batch,
    a_cancelled_search_leaves_it_usable,
    a_cancelled_apply_happens_wholly_or_not,
    a_query_is_in_a_language_that_the_texts_are_in,
)


def hits(found: Neighbours) -> list[int]:
    """The keys that were found, without the padding."""
    return [key for key in found.keys[0].tolist() if key >= 0]


def batch(texts: Mapping[int, str], *, deleted: Sequence[int] = ()) -> TextBatch:
    """A batch of texts, the languages left to detection."""
    return TextBatch(
        keys=np.fromiter(texts, dtype=np.int64, count=len(texts)),
        texts=list(texts.values()),
        languages=[""] * len(texts),
        deleted=np.array(deleted, dtype=np.int64),
    )


async def _filled(opener: Opener) -> LexicalIndex:
    index = await opener()
    await index.apply(batch(dict(enumerate(ENGLISH))), seq=1)
    return index
