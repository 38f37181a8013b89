"""Files become documents; what cannot be read is named exactly."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from ragstone.errors import InvalidArgument
from ragstone.types import Document
from retrieval.ingest.readers import read_path, read_stream


def read(path: Path) -> Document:
    (document,) = read_path(path)
    return document


def lines(*records: Any) -> io.BytesIO:
    return io.BytesIO(b"".join(json.dumps(record).encode() + b"\n" for record in records))


def pdf(*pages: str, title: str | None = None, password: str | None = None) -> bytes:
    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(200, 200)
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(content)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
    if title is not None:
        writer.add_metadata({"/Title": title})
    if password is not None:
        writer.encrypt(password, algorithm="RC4-128")
    buffer = io.BytesIO()
    writer.write(buffer)
    return buffer.getvalue()


# -- one document a file ----------------------------------------------------------------------


def test_a_text_file_is_one_document_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert read(path) == Document(id="notes.txt", text="one\ntwo", metadata={"source": path.as_posix()})


@pytest.mark.parametrize(
    ("text", "title", "body"),
    [
        ("intro\n\n## The *first* `heading`\n\n# Next\n", "The first heading", None),
        ("Title\n=====\n\ntext", "Title", None),
        ("```\n# no heading\n```\n\n# Heading\n", "Heading", None),
        ('---\ntitle: "From the front"\ntags: [a]\n---\n\n# Heading\n', "From the front", "# Heading\n"),
        ("---\ntags: [a]\n---\n# Heading\n", "Heading", "# Heading\n"),
        ("no heading", "", None),
    ],
)
def test_markdown_is_titled_and_keeps_its_headings(
    tmp_path: Path, text: str, title: str, body: str | None
) -> None:
    path = tmp_path / "page.md"
    path.write_text(text)
    document = read(path)
    assert (document.title, document.text) == (title, text if body is None else body)


def test_html_gives_what_one_sees(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        "<title>A &amp; B</title><style>p {}</style><nav>Menu</nav><h1>Head\n line</h1>"
        "<p>One <b>bo</b>ld  word<br>next line</p><script>run()</script><ul><li>a</li><li>b</li></ul>"
        "<table><tr><td>1<td>2<tr><td>3</table><pre>x\n  y</pre>"
    )
    assert read(path).title == "A & B"
    assert read(path).text == "Head line\n\nOne bold word\nnext line\n\na\nb\n\n1 2\n3\n\nx\n  y"


@pytest.mark.parametrize(
    "page",
    [
        b'<meta charset="iso-8859-1"><p>caf\xe9</p>',
        b'<meta http-equiv="Content-Type" content="text/html; charset=windows-1252"><p>caf\xe9',
        "<p>café".encode(),
        b"\xff\xfe" + "<p>café".encode("utf-16-le"),
    ],
)
def test_html_is_read_in_the_encoding_it_declares(tmp_path: Path, page: bytes) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(page)
    assert read(path).text == "café"


def test_line_breaks_add_up_to_a_blank_line_and_no_further(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<p>a<br>b<br><br>c<br><br><br>d<div><div>e</div></div>")
    assert read(path).text == "a\nb\n\nc\n\nd\n\ne"


def test_html_without_a_title_takes_its_first_heading(tmp_path: Path) -> None:
    path = tmp_path / "page.htm"
    path.write_text("<h2>Small</h2><h1>Large</h1>")
    assert read(path).title == "Large"


def test_deeply_nested_html_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep.html"
    path.write_text("<div>" * 5000 + "text")
    assert read(path).text == "text"


def test_a_pdf_is_its_pages_joined(tmp_path: Path) -> None:
    path = tmp_path / "paper.pdf"
    path.write_bytes(pdf("Page one", "Page two", title="The paper"))
    assert (read(path).title, read(path).text) == ("The paper", "Page one\n\nPage two")


def test_a_pdf_that_opens_without_a_password_is_read(tmp_path: Path) -> None:
    path = tmp_path / "open.pdf"
    path.write_bytes(pdf("Text", password=""))
    assert read(path).text == "Text"


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("x.pdf", pdf("Text", password="secret"), "encrypted"),
        ("x.pdf", pdf("Text")[:200], "no readable PDF"),
        ("x.pdf", b"", "no readable PDF"),
        ("x.pdf", pdf(""), "no text"),
        ("x.txt", b"ab\xff", "byte 0xff at offset 2"),
        ("x.txt", b"\xef\xbb\xbfab\xff", "byte 0xff at offset 5"),
        ("x.html", b"<p>\xff", "byte 0xff at offset 3"),
        ("x.html", b"<meta charset=klingon>", "unknown encoding, klingon"),
        ("x.txt.gz", b"plain", "not a gzip"),
        ("x.txt.gz", gzip.compress(b"text" * 100, mtime=0)[:-9], "cannot be read"),
        ("x.docx", b"", "known are .txt"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InvalidArgument) as refused:
        read(path)
    assert str(path) in refused.value.message
    assert says.lower() in refused.value.message.lower()


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"gone\.txt: cannot be read: FileNotFoundError"):
        read(tmp_path / "gone.txt")


# -- folders ----------------------------------------------------------------------------------


def test_a_folder_is_read_in_order_without_hidden_and_unknown_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/y.txt.gz", ".git/c.txt", ".hidden.txt", "image.png", "C.TXT"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(b"x", mtime=0) if name.endswith("gz") else b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [document.id for document in read_path(tmp_path)] == ["C.TXT", "a/y.txt.gz", "a/z.md", "b.txt"]


def test_a_caller_who_takes_reports_gets_all_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff")
    (tmp_path / "b.jsonl").write_text('{"_id": "1"}\nnot json\n{"_id": "2"}\n')
    (tmp_path / "c.pdf").write_bytes(b"")
    (tmp_path / "d.txt").write_text("x")
    reports: list[InvalidArgument] = []
    assert [document.id for document in read_path(tmp_path, report=reports.append)] == ["1", "2", "d.txt"]
    assert [report.violations[0].field.rpartition("/")[2] for report in reports] == [
        "a.txt",
        "b.jsonl:2",
        "c.pdf",
    ]


# -- JSON lines -------------------------------------------------------------------------------


def test_a_line_of_a_beir_corpus_is_a_document() -> None:
    (document,) = read_stream(lines({"_id": "d1", "title": "T", "text": "x", "metadata": {}}))
    assert document == Document(id="d1", title="T", text="x")


def test_other_keys_and_those_of_metadata_become_metadata_without_nulls() -> None:
    record = {
        "_id": 7,
        "language": "de",
        "year": 2020,
        "tags": ["a", None],
        "gone": None,
        "metadata": {"x": 1.5},
    }
    (document,) = read_stream(lines(record))
    assert document == Document(id="7", language="de", metadata={"year": 2020, "tags": ["a"], "x": 1.5})


def test_blank_lines_and_a_byte_order_mark_are_passed_over() -> None:
    stream = io.BytesIO(b'\xef\xbb\xbf{"_id": "1"}\n\n  \n{"_id": "2"}')
    assert [document.id for document in read_stream(stream)] == ["1", "2"]


def test_packed_json_lines_are_read(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(gzip.compress(lines({"_id": "1"}, {"_id": "2"}).getvalue()))
    assert [document.id for document in read_path(path)] == ["1", "2"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "not JSON"),
        (b'{"_id": "1", "n": NaN}', "NaN"),
        (b"[" * 100_000, "not JSON"),
        (b'{"_id": "\xff"}', "not UTF-8: byte 9"),
        (b'["_id"]', "a JSON object"),
        (b'{"text": "x"}', '"_id" must be'),
        (b'{"_id": ""}', '"_id" must be'),
        (b'{"_id": true}', '"_id" must be'),
        (b'{"_id": "1", "text": ["x"]}', '"text" must be a string'),
        (b'{"_id": "1", "text": "\\ud800"}', "surrogate"),
        (b'{"_id": "1", "a": {"b": 1}}', '"a" must be'),
        (b'{"_id": "1", "metadata": {"a": {"b": 1}}}', '"a" must be'),
        (b'{"_id": "1", "a": [[1]]}', '"a" must be'),
        (b'{"_id": "1", "vector": [0.5]}', "vectors are not read"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(line: bytes, says: str) -> None:
    stream = io.BytesIO(b'{"_id": "0"}\n' + line + b"\n")
    with pytest.raises(InvalidArgument) as refused:
        list(read_stream(stream, name="corpus.jsonl"))
    assert refused.value.violations[0].field == "corpus.jsonl:2"
    assert says in refused.value.message


# -- streams ----------------------------------------------------------------------------------


def test_a_stream_of_text_is_one_document_with_the_given_name() -> None:
    (document,) = read_stream(io.BytesIO(b"hello"), suffix=".txt", name="greeting")
    assert document == Document(id="greeting", text="hello")


def test_a_stream_of_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="known are"):
        list(read_stream(io.BytesIO(b""), suffix=".docx"))
