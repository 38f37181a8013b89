"""``ragstone ingest``: documents from files, folders and standard input into a collection."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import typer
from ragstone import Client
from ragstone.errors import RagstoneError
from ragstone.types import Document, WriteResult
from rich.progress import Progress, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from retrieval.cli import output
from retrieval.cli.options import CollectionArgument, JsonOption, ServerOption, connect, shows_progress


@dataclass
class Reading:
    """Documents read from paths one after another, and the files that could not be read."""

    paths: Iterable[Path]
    failed: list[tuple[Path, RagstoneError]] = field(default_factory=list)

    def __iter__(self) -> Iterator[Document]:
        for path in self.paths:
            for file in sorted(_files(path)):
                try:
                    yield from _read(file)
                except RagstoneError as error:
                    # One damaged file must not keep the others out; it is reported at the end.
                    self.failed.append((file, error))


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for file in path.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.is_file() and not hidden:
            yield file


def _read(path: Path) -> Iterator[Document]:
    from retrieval.ingest.readers import read_path

    return read_path(path)


def ingest(
    collection: CollectionArgument,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            show_default=False,
            exists=True,
            allow_dash=True,
            help="Files (txt, Markdown, HTML, PDF, JSON lines, .gz), folders, or - for JSON lines.",
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
        result = import_with_progress(client, collection, reading, wait="indexed" if wait else "committed")
    seconds = time.perf_counter() - started
    _show(result, reading, seconds, as_json=as_json)
    if reading.failed:
        raise typer.Exit(1)


def import_with_progress(
    client: Client, collection: str, documents: Iterable[Document], *, wait: Literal["indexed", "committed"]
) -> WriteResult:
    """Import documents; a terminal sees how many and how fast."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), RateColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=output.stderr(), transient=True, disable=not shows_progress()
    ) as progress:
        task = progress.add_task(f"ingesting into {collection}", total=None)

        def advance(done: WriteResult) -> None:
            progress.update(task, completed=done.documents + done.unchanged)

        return client.import_documents(collection, documents, wait=wait, on_progress=advance)


class RateColumn(TextColumn):
    """``1,234 documents, 98 a second``."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        """The count and the recent rate of ``task``."""
        return Text(f"{int(task.completed):,} documents, {task.speed or 0:,.0f} a second")


def _show(result: WriteResult, reading: Reading, seconds: float, *, as_json: bool) -> None:
    for path, error in reading.failed:
        typer.echo(f"ragstone: {path}: {output.error_line(error)}", err=True)
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
        f"{len(reading.failed):,} files failed; {seconds:.1f} s, {rate:,.0f} documents/s"
    )
