"""``ragstone demo``: a real server, real documents, real questions, in a few minutes."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.rule import Rule

from ragstone import Client
from ragstone.answers import TextDelta
from ragstone.errors import Internal
from ragstone.types import Document, Mode, SearchResult
from retrieval.cli import docstrings, output
from retrieval.cli.ingest import import_with_progress
from retrieval.cli.search import Transcript
from retrieval.cli.server_process import ServerProcess

COLLECTION: Final = "python-docs"
KEPT: Final = Path("data/demo")
QUESTIONS: Final = (
    "How do I create a temporary directory that deletes itself?",
    "How can I run a subprocess and capture its output?",
    "How do I remove the common leading whitespace from a text?",
)


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help=f"Keep the index in ./{KEPT} to go on with it.")
    ] = False,
    max_documents: Annotated[int, typer.Option(min=200, help="How much documentation to index.")] = 5_000,
) -> None:
    """Index this machine's Python documentation and ask it questions.

    Starts a server of its own on a free port, and stops it again.
    """
    console = output.stdout()
    started = time.perf_counter()
    with _data_dir(keep) as data_dir, _terminable():
        console.print("Starting a server on a free port ...")
        with ServerProcess(data_dir) as server, Client(server.address) as client:
            console.print(f"It serves on {server.address}; its index lies in {data_dir}.")
            _index(console, client, max_documents)
            for question in QUESTIONS:
                _search_in_all_modes(console, client, question)
                _answer(console, client, question)
            _filter(console, client)
            _change(console, client)
        console.print(
            f"\nThe server stopped cleanly. The whole demo took {time.perf_counter() - started:.0f} s."
        )
    _go_on(console, keep=keep)


@contextmanager
def _data_dir(keep: bool) -> Iterator[Path]:
    if keep:
        KEPT.mkdir(parents=True, exist_ok=True)
        yield KEPT
        return
    folder = Path(tempfile.mkdtemp(prefix="ragstone-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that the server never outlives the demo."""

    def leave(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# -- the steps ------------------------------------------------------------------------------


def _index(console: Console, client: Client, max_documents: int) -> None:
    _headline(console, "Indexing the docstrings of the standard library and of installed packages")
    if COLLECTION not in {c.name for c in client.list_collections()}:
        client.create_collection(COLLECTION)
    started = time.perf_counter()
    written = import_with_progress(client, COLLECTION, docstrings.corpus(max_documents))
    seconds = time.perf_counter() - started
    made = client.get_collection(COLLECTION)
    console.print(
        f"{made.documents:,} documents, {made.chunks:,} chunks in {seconds:.1f} s "
        f"({(written.documents + written.unchanged) / seconds:,.0f} documents/s, "
        f"{written.unchanged:,} were there already)"
    )
    console.print(f"embedding space: {made.serving.space}")


def _search_in_all_modes(console: Console, client: Client, question: str) -> None:
    _headline(console, question)
    for mode in (Mode.LEXICAL, Mode.DENSE, Mode.HYBRID):
        explain = mode is Mode.HYBRID
        result = client.search(COLLECTION, question, k=3, mode=mode, explain=explain)
        _show(console, result, str(mode.value), explain=explain)


def _answer(console: Console, client: Client, question: str) -> None:
    console.print("the answer, with its sources", style="bold")
    answer = Transcript()
    for event in client.answer(COLLECTION, question):
        answer.add(event)
        if isinstance(event, TextDelta):
            console.print(event.text.replace("\n", " "), end="", markup=False, soft_wrap=True)
    console.print()
    for line in answer.sources():
        console.print(line, style="dim", markup=False, soft_wrap=True)
    _expect(answer.done is not None and bool(answer.citations), "the answer cites nothing")


def _filter(console: Console, client: Client) -> None:
    where = 'package = "tempfile" AND kind = "class"'
    _headline(console, f"Only where {where}")
    result = client.search(COLLECTION, "a file that is deleted when it is closed", k=3, filter=where)
    _show(console, result, "hybrid")
    _expect(
        all(hit.metadata["package"] == "tempfile" for hit in result.hits), "the filter let others through"
    )


def _change(console: Console, client: Client) -> None:
    _headline(console, "Writes are visible at once: add, replace, delete")
    note = Document(id="demo.note", text="The office parrot is called Gustav and lives next to the printer.")
    question = "What is the name of the parrot?"
    for text in (note.text, note.text.replace("Gustav", "Matilda")):
        written = client.upsert(COLLECTION, [replace(note, text=text)])
        result = client.search(COLLECTION, question, k=1, min_seq=written.seq)
        _show(console, result, f"after seq {written.seq}")
        _expect([hit.text for hit in result.hits] == [text], "a write is not visible")
    deleted = client.delete(COLLECTION, ids=[note.id])
    result = client.search(COLLECTION, question, k=10, min_seq=deleted.seq)
    _expect(all(hit.document_id != note.id for hit in result.hits), "a deleted document came back")
    console.print(f"after seq {deleted.seq} the note is gone")


def _go_on(console: Console, *, keep: bool) -> None:
    ragstone = _program()
    folder, name = (str(KEPT), COLLECTION) if keep else ("data", "docs")
    lines = [f"{ragstone} serve --data-dir {folder}", "# and in another terminal:"]
    if not keep:
        lines += [f"{ragstone} collections create {name}", f"{ragstone} ingest {name} README.md docs/"]
    question = shlex.quote(QUESTIONS[1] if keep else "How do I start the server?")
    lines += [f"{ragstone} search {name} {question} --explain", f"{ragstone} ask {name} {question}"]
    _headline(console, "Go on by hand")
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)


# -- small things ---------------------------------------------------------------------------


def _show(console: Console, result: SearchResult, title: str, *, explain: bool = False) -> None:
    took = result.timings_ms.get("total")
    title = title if took is None else f"{title} ({took:.0f} ms)"
    console.print(output.hits_table(result.hits, explain=explain, title=title, chars=150))
    _expect(bool(result.hits) and not result.degraded, "a search found nothing or lost a leg")


def _headline(console: Console, text: str) -> None:
    console.print()
    console.print(Rule(text, align="left"))


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Internal(f"the demo failed: {otherwise}")


def _program() -> str:
    """How to call this program from here, as a shell writes it."""
    path = Path(sys.argv[0]).absolute()
    if path.suffix == ".py":
        return "python -m retrieval.cli.app"
    if shutil.which("ragstone") == str(path):
        return "ragstone"
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
