"""Feature hashing: near where words are shared."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedders.hashing import HashingEmbedder


@given(st.text(max_size=200), st.sampled_from([8, 64, 256]))
async def test_any_text_is_a_unit_vector(text: str, dim: int) -> None:
    row = (await HashingEmbedder(dim=dim).embed_passages([text]))[0]
    assert abs(float(np.linalg.norm(row)) - 1) < 1e-5


async def test_texts_that_share_words_are_nearer_than_texts_that_do_not() -> None:
    query, near, far = await HashingEmbedder().embed_passages(
        ["frozen harbour", "The harbour was frozen in January.", "Bees store honey."]
    )
    assert query @ near > query @ far


async def test_case_and_punctuation_do_not_matter() -> None:
    one, other = await HashingEmbedder().embed_passages(["The Harbour, frozen!", "the harbour frozen"])
    np.testing.assert_array_equal(one, other)


async def test_vectors_are_the_same_in_every_release() -> None:
    row = (await HashingEmbedder(dim=8).embed_passages(["harbour"]))[0]
    np.testing.assert_allclose(row, GOLDEN, atol=1e-4)


GOLDEN = [0, 0, -0.90796, 0, -0.20953, 0.20953, 0.20953, -0.20953]
