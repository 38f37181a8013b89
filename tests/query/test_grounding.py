"""Which sentences of an answer rest on what they cite."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ragstone.answers import AnswerSpan, Citation
from retrieval.query.grounding import ground

QUOTE = "The harbour of Lindholm froze in January 1893."


def citing(answer: str, sentence: str, quote: str = QUOTE) -> Citation:
    start = answer.index(sentence)
    return Citation(
        chunk_id="a#0",
        document_id="a",
        start=0,
        end=len(quote),
        answer_start=start,
        answer_end=start + len(sentence),
        quote=quote,
    )


async def always_alike(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.tile(np.array([1, 0], np.float32), (len(texts), 1))


async def never_alike(texts: Sequence[str]) -> NDArray[np.float32]:
    return np.array([[i % 2, 1 - i % 2] for i in range(len(texts))], np.float32)


async def test_a_sentence_in_the_passages_words_is_grounded() -> None:
    answer = "The harbour froze in January 1893 [1]."
    found = await ground(answer, [citing(answer, answer)], embed=None, similarity=0.6)
    assert (found.share, found.ungrounded) == (1.0, ())


async def test_a_mark_behind_the_full_stop_is_no_sentence_of_its_own() -> None:
    claim = "The harbour froze in January 1893."
    found = await ground(f"{claim} [1]", [citing(claim, claim)], embed=None, similarity=0.6)
    assert (found.share, found.ungrounded) == (1.0, ())


async def test_a_sentence_that_cites_nothing_is_not() -> None:
    claim = "The harbour froze in January 1893 [1]."
    answer = f"{claim} Whales danced."
    found = await ground(answer, [citing(answer, claim)], embed=always_alike, similarity=0.6)
    assert found.share == 0.5
    assert [answer[s.start : s.end] for s in found.ungrounded] == ["Whales danced."]


async def test_a_citation_that_says_something_else_does_not_help() -> None:
    answer = "Whales danced on velvet rooftops [1]."
    found = await ground(answer, [citing(answer, answer)], embed=never_alike, similarity=0.6)
    assert found.ungrounded == (AnswerSpan(start=0, end=len(answer)),)


async def test_other_words_for_the_same_are_grounded_by_their_vector() -> None:
    answer = "Ice closed the port that winter [1]."
    found = await ground(answer, [citing(answer, answer)], embed=always_alike, similarity=0.6)
    assert found.share == 1.0


async def test_an_empty_answer_has_no_share() -> None:
    assert (await ground("", [], embed=None, similarity=0.6)).share is None
