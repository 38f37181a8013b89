"""Readers: files and streams -> documents. They need no server: the command line reads on the client's side.

    .txt .text          one document
    .md .markdown       one document, titled by its front matter or first heading
    .html .htm          one document: what one sees of the page, without navigation and scripts
    .pdf                one document, pages joined
    .jsonl .ndjson      one document a line: ``_id``, ``title``, ``text``, ``language``, and metadata

and each of them with ``.gz`` behind. Every error is an InvalidArgument that names the file, and where it
can the line, column or byte. A caller that hands in ``report`` is told of each error, and the rest is read
all the same; without it the first error is raised.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, TypeAlias

from markdown_it import MarkdownIt
from pypdf import PdfReader

from ragstone.errors import InvalidArgument
from ragstone.types import Document, MetadataValue
from retrieval.ingest.html import decoded_html, html_text

Report: TypeAlias = Callable[[InvalidArgument], None]
TitledText: TypeAlias = tuple[str, str]

_BOM: Final = b"\xef\xbb\xbf"
_FRONT_MATTER: Final = re.compile(r"---\n(.*?\n)?---\n+", re.DOTALL)
_FRONT_TITLE: Final = re.compile(r"""^title:[ \t]*(["']?)(.+)\1[ \t]*$""", re.MULTILINE)
_TITLE_WITHIN: Final = 20_000
"""A Markdown title stands within so many characters."""
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SCALARS: Final = "a string, a number, a boolean, or a list of these"


def read_path(path: Path, *, report: Report | None = None) -> Iterator[Document]:
    """The documents of a file, or of all files in a folder whose suffix is known, in sorted order.

    Hidden files and folders are skipped. A file that is one document has as id its path below ``path``, with
    ``/`` between the parts (a file on its own: its name), and the metadata ``source``: its path as given.
    Raises InvalidArgument, when there is no ``report``, for what cannot be read.
    """
    refuse = report or _raise
    if path.is_dir():
        for file in _known_files(path, refuse):
            yield from _read_file(file, file.relative_to(path).as_posix(), refuse)
    elif _reader_suffix(path.name) is None:
        refuse(
            InvalidArgument.at(str(path), f"is of no known kind; known are {', '.join(SUFFIXES)}, and .gz")
        )
    else:
        yield from _read_file(path, path.name, refuse)


def read_stream(
    stream: BinaryIO, *, suffix: str = ".jsonl", name: str = "stdin", report: Report | None = None
) -> Iterator[Document]:
    """The documents of an open stream, read as a file with that suffix. ``name`` stands in errors, and is
    the id where the stream is one document."""
    refuse = report or _raise
    if suffix in _LINES:
        yield from _json_lines(stream, name, refuse)
    elif suffix in _WHOLE:
        try:
            title, text = _whole(stream.read(), suffix, name)
        except InvalidArgument as wrong:
            refuse(wrong)
            return
        yield Document(id=name, title=title, text=text)
    else:
        refuse(InvalidArgument.at(name, f"{suffix!r} is no known kind; known are {', '.join(SUFFIXES)}"))


def _known_files(folder: Path, refuse: Report) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as exc:
        refuse(_unreadable(folder, exc))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if not entry.is_symlink():  # a link may lead back up, without end
                yield from _known_files(entry, refuse)
        elif _reader_suffix(entry.name) is not None:
            yield entry


def _reader_suffix(name: str) -> str | None:
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    return suffix if suffix in SUFFIXES else None


def _read_file(path: Path, document_id: str, refuse: Report) -> Iterator[Document]:
    suffix = _reader_suffix(path.name) or ""
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as stream:
            if suffix in _LINES:
                yield from _json_lines(stream, str(path), refuse)
                return
            title, text = _whole(stream.read(), suffix, str(path))
    except InvalidArgument as wrong:
        refuse(wrong)
    except (OSError, EOFError, zlib.error) as exc:
        refuse(_unreadable(path, exc))
    else:
        yield Document(id=document_id, title=title, text=text, metadata={"source": path.as_posix()})


def _unreadable(path: Path, cause: Exception) -> InvalidArgument:
    wrong = InvalidArgument.at(str(path), f"cannot be read: {cause.__class__.__name__}: {cause}")
    wrong.__cause__ = cause
    return wrong


def _raise(wrong: InvalidArgument) -> NoReturn:
    raise wrong


# -- one document a file ----------------------------------------------------------------------


def _whole(data: bytes, suffix: str, name: str) -> TitledText:
    return _WHOLE[suffix](data, name)


def _plain(data: bytes, name: str) -> TitledText:
    return "", _decoded(data, name)


def _markdown(data: bytes, name: str) -> TitledText:
    text = _decoded(data, name)
    front = _FRONT_MATTER.match(text)
    if front is not None:
        text = text[front.end() :]
        title = _FRONT_TITLE.search(front[1] or "")
        if title is not None:
            return title[2].strip(), text
    return _first_heading(text), text


def _first_heading(text: str) -> str:
    tokens = MarkdownIt().parse(text[:_TITLE_WITHIN])
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            parts = (child.content or " " * (child.type == "softbreak") for child in inline.children or ())
            return "".join(parts).strip()
    return ""


def _html(data: bytes, name: str) -> TitledText:
    return html_text(decoded_html(data, name))


def _pdf(data: bytes, name: str) -> TitledText:
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise InvalidArgument.at(name, "is encrypted with a password")
        pages = [page.extract_text() for page in reader.pages]
        title = reader.metadata.title if reader.metadata is not None else None
    except InvalidArgument:
        raise
    except Exception as exc:  # a damaged file makes the parser fail in any way
        raise InvalidArgument.at(name, f"is no readable PDF: {exc.__class__.__name__}: {exc}") from exc
    text = "\n\n".join(page.strip() for page in pages if page.strip())
    if not text:
        raise InvalidArgument.at(name, "holds no text; a scanned PDF needs character recognition first")
    return str(title or "").strip(), text


def _decoded(data: bytes, name: str) -> str:
    try:
        text = data.removeprefix(_BOM).decode()
    except UnicodeDecodeError as exc:
        at = exc.start + (len(_BOM) if data.startswith(_BOM) else 0)
        raise InvalidArgument.at(name, f"is not UTF-8: byte {data[at]:#04x} at offset {at}") from exc
    return text.replace("\r\n", "\n").replace("\r", "\n")


# -- one document a line ----------------------------------------------------------------------


def _json_lines(stream: Any, name: str, refuse: Report) -> Iterator[Document]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            document = _json_document(line, f"{name}:{number}")
        except InvalidArgument as wrong:
            refuse(wrong)
        else:
            yield document


def _json_document(line: bytes, where: str) -> Document:
    fields = _json_object(line, where)
    if "vector" in fields:
        raise InvalidArgument.at(where, 'vectors are not read from files: leave "vector" out, or upsert it')
    key = fields.pop("_id", None)
    if not isinstance(key, str | int) or isinstance(key, bool) or key == "":
        raise InvalidArgument.at(where, f'"_id" must be a string that is not empty, not {json.dumps(key)}')
    return Document(
        id=_string(str(key), "_id", where),
        title=_string(fields.pop("title", None), "title", where),
        text=_string(fields.pop("text", None), "text", where),
        language=_string(fields.pop("language", None), "language", where) or None,
        metadata=_metadata(fields, where),
    )


def _json_object(line: bytes, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(line.removeprefix(_BOM).decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as exc:
        raise InvalidArgument.at(where, f"is not UTF-8: byte {exc.start} of the line") from exc
    except json.JSONDecodeError as exc:
        raise InvalidArgument.at(where, f"is not JSON: {exc.msg} at column {exc.colno}") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidArgument.at(where, f"is not JSON that can be read: {exc}") from exc
    if not isinstance(fields, dict):
        raise InvalidArgument.at(where, "must be a JSON object")
    return fields


def _no_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def _string(value: object, key: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidArgument.at(where, f'"{key}" must be a string, not {json.dumps(value)[:40]}')
    if not value.isascii() and _LONE_SURROGATE.search(value):
        raise InvalidArgument.at(where, f'"{key}" is no Unicode text: it has half of a surrogate pair')
    return value


def _metadata(fields: dict[str, Any], where: str) -> dict[str, MetadataValue]:
    """The other keys, and those of an object ``metadata``, as BEIR has it; without nulls."""
    nested = fields.pop("metadata", None)
    if isinstance(nested, dict):
        fields |= nested
    elif nested is not None:
        fields["metadata"] = nested
    for key, value in fields.items():
        if not all(each is None or isinstance(each, str | int | float) for each in _elements(value)):
            raise InvalidArgument.at(where, f'"{key}" must be {_SCALARS}, not {json.dumps(value)[:40]}')
    return {
        key: [each for each in value if each is not None] if isinstance(value, list) else value
        for key, value in fields.items()
        if value is not None
    }


def _elements(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value]


_LINES: Final = frozenset({".jsonl", ".ndjson"})
_WHOLE: Final[Mapping[str, Callable[[bytes, str], TitledText]]] = {
    ".txt": _plain,
    ".text": _plain,
    ".md": _markdown,
    ".markdown": _markdown,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}
SUFFIXES: Final = (*_WHOLE, *sorted(_LINES))
"""What is read; also with ``.gz`` behind."""
