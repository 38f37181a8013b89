"""What `ragstone capacity` takes as measured: a server's memory, words, filters; and the catalog's bytes.

    python -m benchmarks.footprint
    python -m benchmarks.footprint --documents 2500 --json

A real server indexes Python's documentation; its files are weighed beside the text that went in, and what
the calculator's formulas say of them. Filters are filled with made metadata, before the server is there.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

from benchmarks import report
from indexes.metadata import MetadataIndex
from ragstone import Client
from ragstone.types import MetadataValue
from retrieval.cli import docstrings, layouts
from retrieval.cli.server_process import ServerProcess

FILTERED: Final = ((200_000, 1, 0), (200_000, 1, 3), (100_000, 5, 0), (100_000, 5, 3))
"""Documents, chunks of each, values of metadata."""
_COLLECTION: Final = "footprint"
_STEP: Final = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server with the default recipe, after it has merged everything."""

    chunks: int
    text_bytes: int
    """Titles and texts of the chunks."""
    resident: int
    lexical: int
    tokens: int
    dense: int
    catalog: int
    by_formula: int
    """What the calculator's catalog would be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """A filter index that was filled with made documents."""

    documents: int
    chunks_each: int
    values: int
    bytes_a_document: float
    us_a_chunk: float


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=2_500)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    # Filters first: the memory that the server's client leaves behind would be used again by them.
    filters = [fill(*shape) for shape in FILTERED]
    server = weigh(asked.documents)
    _show(server, filters, quiet=asked.json)
    if asked.json:
        report.print_json({"server": asdict(server), "filters": [asdict(one) for one in filters]})


def fill(documents: int, chunks_each: int, values: int) -> Filters:
    """Fill an index as a server does at its start, and see how this process grows."""
    made = random.Random(0)
    before, started = _resident(os.getpid()), perf_counter()
    index = MetadataIndex()
    for number in range(documents):
        first = number * chunks_each
        fields: tuple[tuple[str, MetadataValue], ...] = (
            ("lang", made.choice(("de", "en", "fr", "it"))),
            ("year", made.randrange(1990, 2025)),
            ("source", f"https://example.org/{number}"),
        )
        metadata = dict(fields[:values])
        name = f"document-{number:012d}"
        index.apply([(first + chunk, name, metadata) for chunk in range(chunks_each)], [])
    seconds = perf_counter() - started
    return Filters(
        documents=documents,
        chunks_each=chunks_each,
        values=values,
        bytes_a_document=(_resident(os.getpid()) - before) / documents,
        us_a_chunk=1e6 * seconds / len(index),
    )


def weigh(documents: int) -> Server:
    """Index so many documents with the default recipe, and weigh all files."""
    with tempfile.TemporaryDirectory(prefix="ragstone-footprint-") as folder:
        root = Path(folder)
        with ServerProcess(root) as server, Client(server.address, timeout=600) as client:
            client.create_collection(_COLLECTION)
            corpus = list(docstrings.corpus(documents))
            for start in range(0, len(corpus), _STEP):
                client.upsert(_COLLECTION, corpus[start : start + _STEP])
            client.compact(_COLLECTION)
            resident = _resident(server.pid)
        return _weighed(root, resident)


def _weighed(root: Path, resident: int) -> Server:
    with closing(sqlite3.connect(root / "catalog.sqlite")) as catalog:
        chunks, text, title, key, metadata = catalog.execute(
            "SELECT count(*), sum(length(CAST(text AS BLOB))), sum(length(CAST(title AS BLOB))), "
            "avg(length(document_id)), avg(length(metadata_json)) FROM chunks"
        ).fetchone()
        documents, whole = catalog.execute(
            "SELECT count(*), sum(length(CAST(text AS BLOB))) FROM documents"
        ).fetchone()
    texts = layouts.Texts(
        chunk=text / chunks,
        document=whole / documents,
        chunks_a_document=chunks / documents,
        document_id=key,
        title=title / chunks,
        metadata=metadata,
    )
    a_chunk = layouts.catalog_texts(texts).disk + layouts.catalog_embedding(384).disk
    return Server(
        chunks=chunks,
        text_bytes=text + title,
        resident=resident,
        lexical=_size(root / "versions/1/lexical"),
        tokens=_size(root / "versions/1/tokens"),
        dense=_size(root / "versions/1/dense"),
        catalog=(root / "catalog.sqlite").stat().st_size,
        by_formula=round(a_chunk * chunks),
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _resident(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _show(server: Server, filters: Sequence[Filters], *, quiet: bool) -> None:
    rows = [
        ("chunks", f"{server.chunks:,}", ""),
        ("text", f"{server.text_bytes:,} B", f"{server.text_bytes / server.chunks:,.0f} B a chunk"),
        ("resident memory of the server", f"{server.resident / 1e6:,.0f} MB", ""),
        ("lexical index", f"{server.lexical:,} B", f"{server.lexical / server.text_bytes:.2f} x the text"),
        ("token vectors", f"{server.tokens:,} B", f"{server.tokens / server.chunks:,.0f} B a chunk"),
        ("dense index", f"{server.dense:,} B", f"{server.dense / server.chunks:,.0f} B a chunk"),
        ("catalog", f"{server.catalog:,} B", f"formula {server.by_formula / server.catalog:.2f} x"),
    ]
    report.show("A server with the default recipe", ("", "", ""), rows, quiet=quiet)
    filled = [
        (
            f"{one.documents:,}",
            str(one.chunks_each),
            str(one.values),
            f"{one.bytes_a_document:,.0f}",
            f"{one.us_a_chunk:.1f}",
        )
        for one in filters
    ]
    header = ("documents", "chunks each", "values", "bytes a document", "us a chunk")
    report.show("Filters in memory", header, filled, quiet=quiet)


if __name__ == "__main__":
    main()
