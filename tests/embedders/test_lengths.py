"""How long texts are to a model, and that short ones need not be counted."""

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedders.base import Embedder
from embedders.hashing import HashingEmbedder
from embedders.lengths import measure, truncations
from embedders.weights import DEFAULT_MODEL, find_weights
from ragstone.types import Truncation

TOKENIZER = Tokenizer.from_file(str(find_weights(DEFAULT_MODEL).path / "tokenizer.json"))
TOKENIZER.no_truncation()
TOKENIZER.no_padding()


@given(texts=st.lists(st.text(max_size=60), max_size=4), limit=st.integers(4, 40))
def test_the_texts_found_are_those_that_have_more_tokens(texts: list[str], limit: int) -> None:
    lengths = [len(TOKENIZER.encode(text)) for text in texts]
    wanted = {i: Truncation(tokens=n, limit=limit) for i, n in enumerate(lengths) if n > limit}
    assert measure(TOKENIZER, texts, limit=limit) == wanted


async def test_a_long_text_is_measured_as_well_as_a_short_one(minilm: Embedder) -> None:
    found = await truncations(minilm, ["short", "word " * 5_000], passages=True)
    assert found == {1: Truncation(tokens=5_002, limit=minilm.space.max_tokens)}


async def test_where_nothing_is_cut_nothing_is_told() -> None:
    assert await truncations(HashingEmbedder(), ["word " * 5_000]) == {}
