"""``ragstone ingest``: documents from files, folders and standard input into a collection."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from ragstone import Client
from ragstone.errors import InvalidArgument
from ragstone.types import Document, Wait, WriteResult
from retrieval.cli import output
from retrieval.cli.options import CollectionArgument, JsonOption, ServerOption, connect, shows_progress

STDIN: Final = Path("-")
POLL_S: Final = 0.2
MAX_FAILURES_SHOWN: Final = 20


@dataclass
class Reading:
    """Documents read from paths one after another, and what could not be read.

    One damaged file keeps no other out. A document that is only a title is indexed by it.
    """

    paths: Iterable[Path]
    failed: list[InvalidArgument] = field(default_factory=list)

    def __iter__(self) -> Iterator[Document]:
        for path in self.paths:
            for document in self._read(path):
                text = document.text.strip() or document.title.strip()
                if not text:
                    self.failed.append(InvalidArgument.at(f"{path}: {document.id}", "holds no text"))
                elif document.text.strip():
                    yield document
                else:
                    yield replace(document, title="", text=text)

    def _read(self, path: Path) -> Iterator[Document]:
        from retrieval.ingest.readers import read_path, read_stream

        if path == STDIN:
            return read_stream(typer.get_binary_stream("stdin"), report=self.failed.append)
        return read_path(path, report=self.failed.append)

    def print_failures(self) -> None:
        """One line on stderr for each, but for no more than ``MAX_FAILURES_SHOWN``."""
        for error in self.failed[:MAX_FAILURES_SHOWN]:
            typer.echo(f"ragstone: skipped {error.message}", err=True)
        if len(self.failed) > MAX_FAILURES_SHOWN:
            typer.echo(f"ragstone: skipped {len(self.failed) - MAX_FAILURES_SHOWN:,} more", err=True)


def _existing(paths: list[Path]) -> list[Path]:
    for path in paths:
        if path != STDIN and not path.exists():
            raise typer.BadParameter(f"{path} does not exist")
    return paths


def ingest(
    collection: CollectionArgument,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            show_default=False,
            callback=_existing,
            help="Files (txt, Markdown, HTML, PDF, JSON lines; .gz), folders, or - for JSON lines.",
        ),
    ],
    wait: Annotated[bool, typer.Option(help="Wait until searches see every document.")] = True,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Store documents and index them.

    Can be stopped and run again at any time: what is already stored unchanged costs nothing.
    """
    reading = Reading(paths)
    started = time.perf_counter()
    with connect(server) as client:
        result = import_with_progress(client, collection, reading, wait=wait)
    seconds = time.perf_counter() - started
    _show(result, reading, seconds, as_json=as_json)
    if reading.failed:
        raise typer.Exit(1)


def import_with_progress(
    client: Client, collection: str, documents: Iterable[Document], *, wait: bool = True
) -> WriteResult:
    """Import documents and, with ``wait``, return when searches see them; a terminal sees how it goes."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), RateColumn(), TimeElapsedColumn())
    console = output.stderr()
    with Progress(*columns, console=console, transient=True, disable=not shows_progress()) as progress:
        storing = progress.add_task("stored", total=None, unit="documents")

        def advance(done: WriteResult) -> None:
            progress.update(storing, completed=done.documents + done.unchanged)

        result = client.import_documents(collection, documents, wait=Wait.COMMITTED, on_progress=advance)
        if wait:
            progress.update(storing, visible=False)
            indexing = progress.add_task("indexed", total=None, unit="chunks")
            for pending in _until_indexed(client, collection, result.seq):
                progress.update(indexing, completed=max(result.chunks - pending, 0))
    return result


def _until_indexed(client: Client, collection: str, seq: int) -> Iterator[int]:
    """How many chunks are not indexed yet, again and again, until the version has applied ``seq``."""
    while (version := client.get_collection(collection).serving).applied_seq < seq:
        yield int(version.stats.get("pending_chunks", 0))
        time.sleep(POLL_S)
    parked = int(version.stats.get("parked_steps", 0)) + int(version.stats.get("parked_chunks", 0))
    if parked:
        typer.echo(f"ragstone: {parked:,} pieces could not be indexed; see the server's log", err=True)


class RateColumn(TextColumn):
    """``1,234 documents, 98 a second``."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        """The count and the recent rate of ``task``."""
        return Text(f"{int(task.completed):,} {task.fields['unit']}, {task.speed or 0:,.0f} a second")


def _show(result: WriteResult, reading: Reading, seconds: float, *, as_json: bool) -> None:
    reading.print_failures()
    if as_json:
        output.print_json(
            {
                "documents": result.documents,
                "unchanged": result.unchanged,
                "chunks": result.chunks,
                "failed": len(reading.failed),
                "seconds": round(seconds, 3),
                "seq": result.seq,
            }
        )
        return
    rate = (result.documents + result.unchanged) / max(seconds, 1e-9)
    typer.echo(
        f"{result.documents:,} documents written ({result.chunks:,} chunks), {result.unchanged:,} unchanged, "
        f"{len(reading.failed):,} skipped; {seconds:.1f} s, {rate:,.0f} documents/s"
    )
