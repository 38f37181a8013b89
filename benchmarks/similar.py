"""Answers that are given again to other questions: how often, and how often wrongly.

    python -m benchmarks.similar
    python -m benchmarks.similar --collections squad-dev --questions 1000 --json

Questions with known answers are asked of a real server one after the other, each with what its search finds.
A pair of questions is *the same* when a known answer of one is one of the other. By vectors alone a question
has the answer of the nearest earlier one; by all rules that of `answers.similarity`: numbers are the same and
what is cited was found again. *Reworded* are the same questions in other words, made by rule: the share of
them that find the answer of their own question.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import report
from benchmarks.answers import DATA, ingest, lines, normal
from benchmarks.texts import PROGRESS
from generator.base import Limits, Passage, Prompt, Quote
from generator.extractive import ExtractiveGenerator
from ragstone import Client
from ragstone.answers import Citation, Done, FinishReason
from retrieval.cli.server_process import ServerProcess
from retrieval.query.answer_cache import Answered
from retrieval.query.similar_answers import Asked, SimilarAnswers

SIMILARITIES: Final = (0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)
REWORDINGS: Final = ("please tell me {}", "can you tell me {}?", "{}, please?", "I would like to know {}")
AT_ONCE: Final = 100
REWORDED: Final = 300
"""So many questions are asked in other words as well."""


@dataclass(frozen=True, slots=True)
class _Question:
    asked: Asked
    id: str
    gold: frozenset[str]


@dataclass(slots=True)
class _Pairs:
    """Cosines of questions with the one whose answer they had, by whether that was right."""

    right: list[float] = field(default_factory=list)
    wrong: list[float] = field(default_factory=list)

    def add(self, cosine: float, *, right: bool) -> None:
        (self.right if right else self.wrong).append(cosine)

    def above(self, similarity: float) -> tuple[int, int]:
        """How many answers are given, and how many of them wrongly."""
        right, wrong = (sum(cosine >= similarity for cosine in one) for one in (self.right, self.wrong))
        return right + wrong, wrong


def main() -> None:
    """Ask, and show a table for each collection."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collections", nargs="+", default=["squad-dev", "covidqa-long"], metavar="NAME")
    parser.add_argument("--questions", type=int, default=2_000, help="of each collection; the first ones")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    figures = {name: _collection(name, options) for name in options.collections}
    if options.json:
        report.print_json(figures)


def _collection(name: str, options: argparse.Namespace) -> Mapping[str, Any]:
    folder = DATA / name
    gold = {line["_id"]: line["answers"] for line in lines(folder / "answers.jsonl.gz")}
    texts = {
        line["_id"]: str(line["text"]) for line in lines(folder / "queries.jsonl.gz") if line["_id"] in gold
    }
    texts = dict(itertools.islice(texts.items(), options.questions))
    with (
        tempfile.TemporaryDirectory() as data,
        ServerProcess(Path(data)) as server,
        Client(server.address, timeout=120.0) as client,
    ):
        client.create_collection("bench")
        PROGRESS.print(f"{name}: ingesting")
        ingest(server.address, folder)
        PROGRESS.print(f"{name}: {len(texts):,} questions")
        questions = list(_asked(client, texts, gold))
        again = list(_asked(client, _reworded(texts), gold))
    by_rules, found = asyncio.run(_by_rules(questions, again))
    figures: dict[str, dict[str, Any]] = {
        f"{similarity:.2f}": {
            "vectors": _by_vectors(questions).above(similarity),
            "rules": by_rules.above(similarity),
            "reworded": sum(cosine >= similarity for cosine in found) / len(again),
        }
        for similarity in SIMILARITIES
    }
    report.show(
        f"{name}: {len(questions):,} questions; answers given again, and wrong ones among them",
        ("similarity", "by vectors", "wrong", "by all rules", "wrong", "reworded found"),
        [
            (at, *_share(row["vectors"]), *_share(row["rules"]), f"{row['reworded']:.0%}")
            for at, row in figures.items()
        ],
        quiet=options.json,
    )
    return {"questions": len(questions), "similarities": figures}


def _share(pairs: tuple[int, int]) -> tuple[str, str]:
    given, wrong = pairs
    return f"{given:,}", f"{wrong:,} ({wrong / given:.0%})" if given else "0"


def _reworded(texts: Mapping[str, str]) -> Mapping[str, str]:
    """The first questions in other words."""
    first = itertools.islice(texts.items(), REWORDED)
    forms = itertools.cycle(REWORDINGS)
    return {
        key: form.format(text.rstrip("?").strip()) for (key, text), form in zip(first, forms, strict=False)
    }


def _asked(
    client: Client, texts: Mapping[str, str], gold: Mapping[str, Sequence[str]]
) -> Iterator[_Question]:
    keys = list(texts)
    for some in (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE)):
        embedded = client.embed("bench", [texts[key] for key in some], kind="query")
        for key, vector in zip(some, np.asarray(embedded.vectors, np.float32), strict=True):
            hits = client.search("bench", texts[key]).hits
            passages = [
                Passage(chunk_id=hit.chunk_id, document_id=hit.document_id, text=hit.text) for hit in hits
            ]
            asked = Asked(
                prompt=Prompt(question=texts[key], passages=passages),
                limits=Limits(),
                vector=vector,
                space=embedded.space,
                collection="bench",
            )
            yield _Question(asked, key, frozenset(" ".join(normal(text)) for text in gold[key]))


def _by_vectors(questions: Sequence[_Question]) -> _Pairs:
    """Each question beside the nearest one before it."""
    pairs = _Pairs()
    vectors = np.stack([question.asked.vector for question in questions])
    for place in range(1, len(questions)):
        cosines = vectors[:place] @ vectors[place]
        nearest = int(np.argmax(cosines))
        right = bool(questions[place].gold & questions[nearest].gold)
        pairs.add(float(cosines[nearest]), right=right)
    return pairs


async def _by_rules(
    questions: Sequence[_Question], reworded: Sequence[_Question]
) -> tuple[_Pairs, Sequence[float]]:
    """Each question beside that whose answer it is given; the cosines of reworded ones with their own."""
    pairs, known = _Pairs(), {question.id: question for question in questions}
    cache = SimilarAnswers(len(questions), similarity=SIMILARITIES[0])
    answered = {question.id: await _answer(question) for question in questions}
    for question in questions:
        found = cache.find(question.asked)
        if found is not None and found.done.similarity is not None:
            right = bool(question.gold & known[found.text].gold)
            pairs.add(found.done.similarity, right=right)
        cache.put(question.asked, answered[question.id])
    own: list[float] = []
    for question in reworded:
        found = cache.find(question.asked)
        if found is not None and found.text == question.id and found.done.similarity is not None:
            own.append(found.done.similarity)
    return pairs, own


async def _answer(question: _Question) -> Answered:
    """The extracted answer, under the id of its question."""
    passages, citations = question.asked.prompt.passages, list[Citation]()
    async for item in ExtractiveGenerator().stream(question.asked.prompt, Limits()):
        if isinstance(item, Quote):
            passage = passages[item.passage]
            citations.append(
                Citation(
                    chunk_id=passage.chunk_id,
                    document_id=passage.document_id,
                    start=item.start,
                    end=item.end,
                    answer_start=item.answer_start,
                    answer_end=item.answer_end,
                    quote=passage.text[item.start : item.end],
                )
            )
    done = Done(finish_reason=FinishReason.COMPLETE)
    return Answered(text=question.id, citations=citations, done=done)


if __name__ == "__main__":
    main()
