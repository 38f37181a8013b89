"""What a chunker promises for any text, and where it prefers to cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from ragstone.errors import InvalidArgument
from retrieval.ingest.chunking import Chunker, Span, chunk_id, context_window

LETTERS = "abcdefghijklmnopqrstuvwxyzäöüß0123456789.,!?#[]()-'日本語。ไทย"


def word_pieces() -> Tokenizer:
    """BERT's way to cut words, over an alphabet and a few words."""
    pieces = [
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *LETTERS,
        *(f"##{letter}" for letter in LETTERS),
        "the",
        "sen",
        "##tence",
    ]
    tokenizer = Tokenizer(
        models.WordPiece({piece: at for at, piece in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    return tokenizer


def byte_pieces() -> Tokenizer:
    """Byte-level BPE: a space belongs to the word behind it, and a character may be several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: at for at, piece in enumerate([*alphabet, "th", "the", "Ġthe", "ĠĠ"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "Ġ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


TOKENIZERS = {"word pieces": word_pieces(), "byte pieces": byte_pieces(), "estimated": None}

prose = st.lists(
    st.sampled_from(
        ["the", "sentence", "cut", "Dr", "2020", "x" * 40, "y" * 300, "日本語です。", "ภาษาไทย", "é", "👩‍🚀"]
    )
    | st.sampled_from([". ", "! ", "\n\n", "\n", " ", "  ", "\t", ", ", "\n# Heading\n", "\n- ", "\u2003"]),
    max_size=120,
).map("".join)
texts = prose | st.text(max_size=300)
sizes = st.tuples(st.integers(16, 48), st.integers(0, 8))


def chunker(name: str, *, max_tokens: int = 16, overlap_tokens: int = 0) -> Chunker:
    return Chunker(max_tokens=max_tokens, overlap_tokens=overlap_tokens, tokenizer=TOKENIZERS[name])


def tokens(name: str, text: str) -> int:
    """What the embedder would count, special tokens included."""
    tokenizer = TOKENIZERS[name]
    if tokenizer is None:
        return 2 + len(text) // 4 if text.isascii() and text.isalpha() else 0
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return len(plain.encode(text).ids)


def cut(text: str, spans: list[Span]) -> list[str]:
    return [text[span.start : span.end] for span in spans]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=texts, size=sizes)
@example(text="y" * 5000, size=(16, 8))
@example(text="👩‍🚀" * 50, size=(16, 8))
@settings(max_examples=60)
def test_every_character_but_white_space_is_in_a_chunk(name: str, text: str, size: tuple[int, int]) -> None:
    spans = chunker(name, max_tokens=size[0], overlap_tokens=size[1]).split(text)
    covered = {at for span in spans for at in range(span.start, span.end)}
    assert {at for at, char in enumerate(text) if not char.isspace()} <= covered


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=texts, title=texts, size=sizes)
@example(text="y" * 5000, title="y" * 5000, size=(16, 8))
@example(text="the " * 100, title="👩‍🚀" * 50, size=(16, 0))
@settings(max_examples=60, deadline=None)
def test_every_chunk_fits_together_with_its_title(
    name: str, text: str, title: str, size: tuple[int, int]
) -> None:
    cutter = chunker(name, max_tokens=size[0], overlap_tokens=size[1])
    for piece in cut(text, cutter.split(text, title)):
        assert tokens(name, cutter.passage(title, piece)) <= size[0]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=texts, size=sizes)
@settings(max_examples=60)
def test_chunks_advance_and_only_neighbours_overlap(name: str, text: str, size: tuple[int, int]) -> None:
    spans = chunker(name, max_tokens=size[0], overlap_tokens=size[1]).split(text)
    assert all(a.start < b.start and a.end < b.end for a, b in pairwise(spans))
    assert all(a.end <= c.start for a, c in zip(spans, spans[2:], strict=False))


@given(text=texts, size=sizes)
def test_neighbours_share_no_more_tokens_than_allowed(text: str, size: tuple[int, int]) -> None:
    spans = chunker("word pieces", max_tokens=size[0], overlap_tokens=size[1]).split(text)
    for before, after in pairwise(spans):
        shared = text[after.start : max(after.start, before.end)]
        assert tokens("word pieces", shared) - 2 <= size[1]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=texts)
@settings(max_examples=30)
def test_chunks_begin_and_end_with_a_visible_character(name: str, text: str) -> None:
    assert all(piece and piece == piece.strip() for piece in cut(text, chunker(name).split(text)))


@pytest.mark.parametrize("text", ["", " ", "\n\t \u2003"])
def test_white_space_has_no_chunks(text: str) -> None:
    assert chunker("word pieces").split(text) == []


def test_a_text_that_fits_is_one_chunk() -> None:
    assert chunker("word pieces", max_tokens=32).split("  The sentence. The cut. ") == [Span(2, 24)]


def test_a_title_takes_room_from_the_text() -> None:
    cutter = chunker("estimated")
    assert len(cutter.split("the " * 13)) == 1
    assert len(cutter.split("the " * 13, "A title")) == 2


def test_a_long_title_leaves_three_quarters_to_the_text() -> None:
    passage = chunker("estimated").passage("many words stand in this title", "text")
    assert passage == "many words text"


def test_sentences_stay_whole() -> None:
    text = "One two three four five six. Seven eight nine ten. Eleven by Dr. Who et al. in it."
    assert cut(text, chunker("estimated").split(text)) == [
        "One two three four five six.",
        "Seven eight nine ten.",
        "Eleven by Dr. Who et al. in it.",
    ]


def test_no_sentence_begins_with_a_small_letter() -> None:
    text = "One two three four five approx.  six seven eight nine. Ten eleven twelve."
    assert cut(text, chunker("estimated", max_tokens=22).split(text))[1:] == ["Ten eleven twelve."]


@pytest.mark.parametrize(
    "text", ["!" * 200_000, "。" * 200_000, " \n" * 100_000 + "x", ". [1" * 50_000, "x" * 300_000]
)
def test_text_that_no_one_writes_is_cut_in_linear_time(text: str) -> None:
    spans = chunker("estimated", max_tokens=256).split(text)
    assert spans[-1].end == len(text)


def test_a_citation_stays_with_its_sentence() -> None:
    text = "One two three four five six. [1] [2, 3] Seven eight nine ten."
    assert cut(text, chunker("estimated", max_tokens=20).split(text))[0].endswith("[1] [2, 3]")


@pytest.mark.parametrize("heading", ["## Methods", "Methods"])
def test_a_heading_opens_a_chunk_and_stays_with_its_text(heading: str) -> None:
    text = f"One two three four. Five six seven eight.\n\n{heading}\n\nNine ten. Eleven twelve. One two."
    assert cut(text, chunker("estimated", max_tokens=22).split(text)) == [
        "One two three four. Five six seven eight.",
        f"{heading}\n\nNine ten. Eleven twelve. One two.",
    ]


def test_a_sentence_that_is_too_long_is_cut_between_words() -> None:
    text = " ".join(f"word{n}" for n in range(40))
    assert " ".join(cut(text, chunker("estimated").split(text))) == text


def test_overlap_repeats_whole_sentences() -> None:
    text = "One two three. Four five six. Seven eight nine. One two three. Four five six."
    pieces = cut(text, chunker("estimated", max_tokens=18, overlap_tokens=6).split(text))
    assert pieces[:2] == [
        "One two three. Four five six. Seven eight nine.",
        "Seven eight nine. One two three. Four five six.",
    ]


def test_a_text_longer_than_one_pass_of_the_tokenizer_is_cut_like_any_other() -> None:
    text = "The sentence. " * 20_000
    spans = chunker("word pieces", max_tokens=64).split(text)
    assert {text[span.start : span.end] for span in spans[:-1]} == {"The sentence. " * 14 + "The sentence."}


@pytest.mark.parametrize(("max_tokens", "overlap_tokens"), [(15, 0), (64, 33), (64, -1)])
def test_sizes_that_cannot_work_are_refused(max_tokens: int, overlap_tokens: int) -> None:
    with pytest.raises(InvalidArgument, match=r"chunker\."):
        Chunker(max_tokens=max_tokens, overlap_tokens=overlap_tokens)


@given(texts, st.integers(0, 200), st.integers(0, 200), st.integers(1, 200))
def test_a_context_window_holds_the_span_and_keeps_to_its_size(text: str, a: int, b: int, chars: int) -> None:
    start, end = sorted((min(a, len(text)), min(b, len(text))))
    low, high = context_window(text, start, end, chars=chars)
    assert 0 <= low <= start <= end <= high <= len(text)
    assert high - low <= max(chars, end - start)


def test_a_context_window_ends_on_words_and_uses_both_sides() -> None:
    text = "alpha beta gamma delta epsilon zeta eta"
    start = text.index("delta")
    low, high = context_window(text, start, start + 5, chars=22)
    assert text[low:high] == "gamma delta epsilon"


def test_a_context_window_at_an_edge_widens_to_the_other_side() -> None:
    assert context_window("alpha beta gamma delta", 0, 5, chars=16) == (0, 16)


def test_a_short_text_is_its_own_context_window() -> None:
    assert context_window("alpha beta", 6, 10, chars=10) == (0, 10)


def test_a_chunk_id_depends_on_document_place_text_and_chunker_alone() -> None:
    same = chunk_id("doc/a", 3, "text", "tokens=256")
    assert same == chunk_id("doc/a", 3, "text", "tokens=256")
    assert same.startswith("doc/a#3-")
    assert len(same) == len("doc/a#3-") + 8
    others = [("doc/b", 3, "text", "c"), ("doc/a", 4, "text", "c"), ("doc/a", 3, "Text", "c")]
    assert len({same, *(chunk_id(*other) for other in others), chunk_id("doc/a", 3, "text", "d")}) == 5
