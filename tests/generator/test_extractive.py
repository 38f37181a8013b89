"""Answers that quote: which sentences are chosen, and where they come from."""

from hypothesis import given
from hypothesis import strategies as st

from generator.base import Delta, End, Generated, Limits, Passage, Prompt, Quote
from generator.extractive import ExtractiveGenerator
from ragstone.answers import FinishReason

WORDS = st.sampled_from(
    ["harbour", "Froze.", "ice", "灯台。", "\U0001f6a2", "Dr.", "\n\n", "in", "1893!", "पुल।", "é"]
)
TEXTS = st.lists(WORDS, max_size=25).map(" ".join)


def prompt(question: str, *texts: str, language: str | None = None) -> Prompt:
    passages = [Passage(chunk_id=f"{i}#0", document_id=str(i), text=text) for i, text in enumerate(texts)]
    return Prompt(question=question, passages=passages, language=language)


async def answer(asked: Prompt, *, max_tokens: int = 512) -> list[Generated]:
    return [item async for item in ExtractiveGenerator().stream(asked, Limits(max_tokens=max_tokens))]


def text_of(items: list[Generated]) -> str:
    return "".join(item.text for item in items if isinstance(item, Delta))


def end_of(items: list[Generated]) -> End:
    end = items[-1]
    assert isinstance(end, End)
    return end


async def test_the_sentence_that_answers_comes_first_with_the_number_of_its_passage() -> None:
    items = await answer(
        prompt(
            "When did the harbour freeze?",
            "Bees store honey. They fly.",
            "The town is old. The harbour was freezing in 1893. Boats were repaired.",
        )
    )
    assert text_of(items).startswith("The harbour was freezing in 1893. [2]")


async def test_a_question_without_any_evidence_gets_no_text() -> None:
    items = await answer(prompt("Who painted the ceiling?", "The bees store honey in the combs."))
    assert text_of(items) == ""
    assert end_of(items).finish_reason is FinishReason.NO_EVIDENCE


async def test_stop_words_alone_are_no_evidence() -> None:
    items = await answer(prompt("What is the ceiling of the chapel?", "This is the honey of the bees."))
    assert end_of(items).finish_reason is FinishReason.NO_EVIDENCE


async def test_a_repeated_sentence_is_quoted_once() -> None:
    sentence = "The harbour of Lindholm froze in January."
    items = await answer(prompt("When did the harbour freeze?", sentence, sentence, f"Again: {sentence}"))
    assert sum(isinstance(item, Quote) for item in items) == 1


async def test_an_answer_that_does_not_fit_is_cut_after_its_last_word() -> None:
    items = await answer(prompt("harbour?", "The harbour froze early in January."), max_tokens=3)
    assert text_of(items) == "The harbour froze [1]"
    assert end_of(items).finish_reason is FinishReason.LENGTH
    assert end_of(items).usage.completion_tokens == 3


async def test_text_without_spaces_is_matched_by_its_characters() -> None:
    items = await answer(prompt("灯台はどこに立つか", "蜂は蜜を集める。灯台は海岸に立つ。", language="ja"))
    assert text_of(items).startswith("灯台は海岸に立つ。 [1]")


async def test_words_are_stemmed_in_the_language_of_the_question() -> None:
    items = await answer(
        prompt("Welche Häfen gibt es?", "Die Bienen summen. Der Hafen ist klein.", language="de")
    )
    assert text_of(items).startswith("Der Hafen ist klein.")


async def test_long_passages_are_read_in_a_thread_with_the_same_answer() -> None:
    padding = "Bees store honey. " * 200
    items = await answer(prompt("When did the harbour freeze?", padding + "The harbour froze in 1893."))
    assert text_of(items).startswith("The harbour froze in 1893. [1]")


@given(question=TEXTS, texts=st.lists(TEXTS, max_size=4), max_tokens=st.integers(1, 30))
async def test_every_quote_is_the_same_text_in_the_answer_and_in_its_passage(
    question: str, texts: list[str], max_tokens: int
) -> None:
    items = await answer(prompt(question, *texts), max_tokens=max_tokens)
    text = ""
    for item in items:
        if isinstance(item, Delta):
            text += item.text
        elif isinstance(item, Quote):
            quoted = texts[item.passage][item.start : item.end]
            assert quoted
            assert text[item.answer_start : item.answer_end] == quoted
            assert text[item.answer_end :] == f" [{item.passage + 1}]"
    assert end_of(items).usage.completion_tokens <= max_tokens
    assert (text == "") == (end_of(items).finish_reason is FinishReason.NO_EVIDENCE)
