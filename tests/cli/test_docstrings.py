"""The demo's corpus comes from source text, never from imported modules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ragstone.types import Document
from retrieval.cli.docstrings import MAX_CHARS, Source, corpus, documents_of, shortened, stdlib_sources

MODULE = '''
"""A module that says enough about itself to be found."""

raise RuntimeError("whoever imports this module fails")

if True:
    def under_a_condition(first: int, *rest: str, flag: bool = False) -> None:
        """Defined under a condition, and still part of the module."""

class Box(dict):
    """Holds things, and is documented well enough for the corpus."""

    def __init__(self, size: int = 3) -> None:
        """Private by convention: dunder methods are left out here."""

    def put(self, thing: object, /, at: int = 0) -> None:
        """Put a thing into the box, at a position of your choice."""

    def _secret(self) -> None:
        """Nobody should find this docstring, however long it may be."""

def short():
    """Too short."""
'''


@pytest.fixture
def documents(tmp_path: Path) -> dict[str, Document]:
    path = tmp_path / "boxes.py"
    path.write_text(MODULE)
    source = Source(path=path, module="boxes", package="boxes", origin="stdlib")
    return {document.id: document for document in documents_of(source)}


def test_public_documented_things_become_documents(documents: dict[str, Document]) -> None:
    assert set(documents) == {"boxes", "boxes.under_a_condition", "boxes.Box", "boxes.Box.put"}


def test_the_title_is_the_signature_without_self_and_annotations(documents: dict[str, Document]) -> None:
    assert documents["boxes.under_a_condition"].title == "boxes.under_a_condition(first, *rest, flag=False)"
    assert documents["boxes.Box"].title == "boxes.Box(size=3)"
    assert documents["boxes.Box.put"].title == "boxes.Box.put(thing, /, at=0)"


def test_metadata_name_kind_package_module_and_origin(documents: dict[str, Document]) -> None:
    assert documents["boxes.Box.put"].metadata == {
        "kind": "method",
        "package": "boxes",
        "module": "boxes",
        "qualname": "boxes.Box.put",
        "origin": "stdlib",
    }


@pytest.mark.parametrize("content", [b"def broken(:", b"\xff\xfe\x00", b"x = '\0'"])
def test_a_file_that_is_no_python_gives_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.py"
    path.write_bytes(content)
    assert list(documents_of(Source(path=path, module="broken", package="broken", origin="stdlib"))) == []


def test_long_text_is_cut_after_a_whole_sentence() -> None:
    text = "One sentence. " * 200
    assert shortened(text).endswith("sentence.")
    assert MAX_CHARS // 2 < len(shortened(text)) <= MAX_CHARS


def test_the_corpus_begins_with_the_modules_that_the_questions_are_about() -> None:
    sources = stdlib_sources()
    assert sources[0].module == "tempfile"
    assert {"subprocess", "pathlib", "asyncio"} <= {source.package for source in sources[:60]}


def test_the_corpus_imports_nothing_and_has_unique_ids() -> None:
    before = set(sys.modules)
    ids = [document.id for document in corpus(300)]
    assert len(ids) == len(set(ids)) == 300
    assert "tempfile.TemporaryDirectory" in ids
    assert set(sys.modules) == before
