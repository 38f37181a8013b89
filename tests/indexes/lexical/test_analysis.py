"""What the analyser makes of texts, and which language it takes them for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes.lexical.analysis import Analyser, detect_language
from indexes.lexical.conformance import LANGUAGES, ODD_QUERIES
from indexes.lexical.languages import STEMMERS, likely_languages, primary_code, stop_words

analyser = Analyser()


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("en", "The Violins were tuned", ["violin", "tune"]),
        ("en", "vitamin D, T cells", ["vitamin", "d", "t", "cell"]),
        ("de", "Die Größe der Häuser", ["gross", "haus"]),
        ("es", "¿Qué es una canción?", ["cancion"]),
        ("hi", "लड़कियों", ["लड़क"]),
    ],
)
def test_a_language_with_a_stemmer_makes_stems_without_stop_words(
    language: str, text: str, terms: list[str]
) -> None:
    assert analyser.terms(text, language) == terms


def test_a_language_without_a_stemmer_makes_grams_of_four_with_marked_edges() -> None:
    assert analyser.terms("Việt", "vi") == ["_việ", "việt", "iệt_"]
    assert analyser.terms("à", "vi") == ["_à_"]


def test_an_unknown_language_makes_plain_words() -> None:
    assert analyser.terms("The Cafés, XJ-42", "") == ["the", "cafes", "xj", "42"]


@pytest.mark.parametrize("language", ["zh", "ja", "en", ""])
def test_chinese_and_japanese_make_pairs_in_any_language(language: str) -> None:
    assert analyser.terms("心脏病", language) == ["心脏", "脏病"]
    assert analyser.terms("カメラ", language) == ["カメ", "メラ"]


@pytest.mark.parametrize("language", ["th", "en", ""])
def test_thai_makes_triples_in_any_language(language: str) -> None:
    assert analyser.terms("หัวใจ", language) == ["หัว", "ัวใ", "วใจ"]


def test_english_names_in_a_chinese_text_stay_findable() -> None:
    assert set(analyser.terms("Panthers", "zh")) <= set(analyser.terms("他是 Panthers 的球员", "zh"))


def test_forms_that_look_the_same_are_the_same() -> None:
    assert analyser.terms("ＶＩＯＬＩＮ ﬁle", "en") == analyser.terms("violin file", "en")
    assert analyser.terms("cafe\u0301", "fr") == analyser.terms("café", "fr") == analyser.terms("CAFE", "fr")


def test_a_term_is_repeated_as_often_as_its_word() -> None:
    assert analyser.terms("blood, Blood and BLOOD", "en") == ["blood"] * 3


@pytest.mark.parametrize("language", ["", "en", "vi"])
def test_an_accent_alone_is_no_term(language: str) -> None:
    assert "" not in analyser.terms("\u0301 \u0300", language)


def test_very_long_words_are_cut() -> None:
    assert analyser.terms("x" * 1_000, "en") == ["x" * 64]


@given(text=st.text() | st.sampled_from(ODD_QUERIES), language=st.sampled_from(["", "xx", *LANGUAGES]))
def test_no_term_is_empty_or_holds_white_space_or_a_colon(text: str, language: str) -> None:
    for term in analyser.terms(text, language):
        assert term
        assert term.split() == [term]
        assert ":" not in term


@pytest.mark.parametrize("language", STEMMERS)
def test_each_stemmer_works_with_the_stop_words_of_its_language(language: str) -> None:
    assert all(analyser.terms(word, language) == [] for word in stop_words(language) if word.isalpha())


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_sentence_is_enough_to_detect_its_language(language: str) -> None:
    document, _ = LANGUAGES[language]
    assert detect_language(document) == language


@pytest.mark.parametrize("text", ["", "42", "🎻", "\x00", "\ud800", "x7-B/12"])
def test_what_is_no_language_is_unknown(text: str) -> None:
    assert detect_language(text) == ""


def test_a_hint_stands_above_detection() -> None:
    assert detect_language("The heart pumps blood through the arteries.", "de-AT") == "de"


@pytest.mark.parametrize(
    ("tag", "code"),
    [("en", "en"), ("EN_us", "en"), ("pt-BR", "pt"), ("nb", "no"), ("tlh", ""), ("", ""), (None, "")],
)
def test_a_language_tag_becomes_a_known_code(tag: str | None, code: str) -> None:
    assert primary_code(tag) == code


def test_a_short_query_is_taken_for_a_language_of_the_index() -> None:
    shares = {"en": 500.0, "de": 500.0}
    assert likely_languages("What does the heart pump?", shares, at_least=0.1, at_most=4) == ["en"]
    assert likely_languages("Was pumpt das Herz?", shares, at_least=0.1, at_most=4) == ["de"]


def test_a_query_without_words_may_be_in_any_language() -> None:
    shares = {"en": 500.0, "de": 400.0, "": 9.0}
    assert likely_languages("1990", shares, at_least=0.1, at_most=4) == ["en", "de"]


def test_a_language_of_one_document_is_still_recognised() -> None:
    shares = {"en": 10_000.0, "fr": 1.0}
    french = "Quels sont les organes dans lesquels le cœur envoie le sang ?"
    assert "fr" in likely_languages(french, shares, at_least=0.1, at_most=4)
