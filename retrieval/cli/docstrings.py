"""The demo's corpus: documentation that every machine with Python has, read without importing it.

Modules, classes, functions and methods that are public and documented become documents; their id
is the qualified name, their title the signature.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Final, TypeAlias

from ragstone.types import Document

MIN_CHARS: Final = 40
MAX_CHARS: Final = 1_200
MAX_SIGNATURE_CHARS: Final = 100

FIRST: Final = (
    *("tempfile", "subprocess", "asyncio", "pathlib", "json", "collections", "functools", "os"),
    *("shutil", "re", "datetime", "csv", "logging", "argparse", "sqlite3", "zipfile", "threading"),
)
"""Modules that the demo's questions are about: indexed first, and whole."""
SKIPPED: Final = frozenset(
    (
        *("test", "tests", "testing", "idlelib", "lib2to3", "turtledemo", "turtle", "ensurepip"),
        *("distutils", "pydoc_data", "site-packages", "this", "antigravity"),
    )
)

Definition: TypeAlias = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One module's file; ``package`` is the top-level name that people import."""

    path: Path
    module: str
    package: str
    origin: str
    """``stdlib``, or the name of the distribution."""


def corpus(max_documents: int) -> Iterator[Document]:
    """The standard library's best known modules, the rest of it, then installed packages."""
    sources = chain(stdlib_sources(), installed_sources())
    seen: set[str] = set()
    for source in sources:
        for document in documents_of(source):
            if len(seen) >= max_documents:
                return
            if document.id not in seen:
                seen.add(document.id)
                yield document


# -- where the sources are ------------------------------------------------------------------


def stdlib_sources() -> list[Source]:
    """Every public module of the standard library, ``FIRST`` first."""
    root = Path(sysconfig.get_path("stdlib"))
    names = {name: position for position, name in enumerate(FIRST)}
    sources = _sources(root, (path.relative_to(root) for path in root.rglob("*.py")), "stdlib")
    return sorted(sources, key=lambda s: (names.get(s.package, len(names)), s.module))


def installed_sources() -> Iterator[Source]:
    """Every public module of the installed distributions, by name."""
    found = {dist.metadata["Name"]: dist for dist in metadata.distributions()}
    for name in sorted(found, key=str.lower):
        files = (Path(str(file)) for file in found[name].files or () if file.suffix == ".py")
        yield from _sources(Path(str(found[name].locate_file(""))), files, name)


def _sources(root: Path, files: Iterable[Path], origin: str) -> Iterator[Source]:
    for file in sorted(files):
        parts = file.with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts and all(_is_public(part) for part in parts):
            yield Source(path=root / file, module=".".join(parts), package=parts[0], origin=origin)


def _is_public(name: str) -> bool:
    return name.isidentifier() and not name.startswith(("_", "test_")) and name not in SKIPPED


# -- what a source says ---------------------------------------------------------------------


def documents_of(source: Source) -> Iterator[Document]:
    """The documents of one module; none where the file cannot be read or parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes are not our news
            tree = ast.parse(source.path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    text = _text(tree)
    if text:
        yield _document(source, source.module, source.module, "module", text)
    yield from _members(source, tree.body, source.module, inside_class=False)


def _members(
    source: Source, body: Iterable[ast.stmt], prefix: str, *, inside_class: bool
) -> Iterator[Document]:
    for node in _definitions(body):
        if node.name.startswith("_"):
            continue
        name, text = f"{prefix}.{node.name}", _text(node)
        is_class = isinstance(node, ast.ClassDef)
        kind = "class" if is_class else "method" if inside_class else "function"
        if text:
            yield _document(source, name, f"{name}{_signature(node)}", kind, text)
        if is_class:
            yield from _members(source, node.body, name, inside_class=True)


def _definitions(body: Iterable[ast.stmt]) -> Iterator[Definition]:
    """Classes and functions, also those under ``if`` and ``try``."""
    for node in body:
        if isinstance(node, Definition):
            yield node
        elif isinstance(node, ast.If):
            yield from _definitions([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handlers = chain.from_iterable(handler.body for handler in node.handlers)
            yield from _definitions([*node.body, *handlers, *node.orelse, *node.finalbody])


def _text(node: ast.Module | Definition) -> str:
    text = (ast.get_docstring(node) or "").strip()
    # Lone surrogates are legal in a docstring and in no document.
    text = text.encode("utf-8", "ignore").decode("utf-8").replace("\0", "")
    return shortened(text) if len(text) >= MIN_CHARS else ""


def shortened(text: str, limit: int = MAX_CHARS) -> str:
    """``text``, cut after the last paragraph, sentence or word that ends within ``limit``."""
    if len(text) <= limit:
        return text
    for border in (r"\n\s*\n", r"[.!?](?=\s)", r"\s"):
        ends = [match.end() for match in re.finditer(border, text[:limit])]
        if ends and ends[-1] > limit // 2:
            return text[: ends[-1]].rstrip()
    return text[:limit]


def _signature(node: Definition) -> str:
    """``(prefix, *, delete=True)``: names and defaults, without ``self`` and annotations."""
    if isinstance(node, ast.ClassDef):
        inits = (n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
        init = next(inits, None)
        return _signature(init) if init else ""
    arguments = node.args
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        argument.annotation = None
    for star in (arguments.vararg, arguments.kwarg):
        if star:
            star.annotation = None
    text = re.sub(r"^(self|cls)\b(, (/, )?)?", "", ast.unparse(arguments))
    return f"({text})" if len(text) <= MAX_SIGNATURE_CHARS else "(...)"


def _document(source: Source, name: str, title: str, kind: str, text: str) -> Document:
    return Document(
        id=name,
        title=title,
        text=text,
        language="en",
        metadata={
            "kind": kind,
            "package": source.package,
            "module": source.module,
            "qualname": name,
            "origin": source.origin,
        },
    )
