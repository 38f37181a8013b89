"""HTML -> the text that one sees."""

from __future__ import annotations

import codecs
import re
from typing import Final

from selectolax.lexbor import LexborHTMLParser, LexborNode

from ragstone.errors import InvalidArgument

_INVISIBLE: Final = (
    *("head", "script", "style", "noscript", "template", "nav", "svg", "math", "iframe", "object"),
    *("button", "select", "textarea", "dialog", "canvas", "audio", "video"),
)
_BREAKS: Final = dict.fromkeys(("li", "tr", "dt", "dd", "option", "caption", "figcaption"), "\n") | (
    dict.fromkeys(
        (
            *(
                "address",
                "article",
                "aside",
                "blockquote",
                "body",
                "details",
                "div",
                "dl",
                "fieldset",
                "figure",
            ),
            *("footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "main", "ol", "p", "pre"),
            *("section", "summary", "table", "ul"),
        ),
        "\n\n",
    )
    | dict.fromkeys(("td", "th"), " ")
)
_CHARSET: Final = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w-]+)""", re.IGNORECASE)
_BOMS: Final = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_HEAD_BYTES: Final = 1024


def decoded_html(data: bytes, name: str) -> str:
    """The page as text, in the encoding of its byte order mark, else of its ``<meta>``, else UTF-8.

    Raises InvalidArgument, naming ``name``, for bytes that are not in that encoding.
    """
    mark = next((mark for mark in _BOMS if data.startswith(mark)), b"")
    encoding = _BOMS[mark] if mark else _declared(data)
    try:
        return data[len(mark) :].decode(encoding)
    except LookupError as exc:
        raise InvalidArgument.at(name, f"declares an unknown encoding, {encoding}") from exc
    except UnicodeDecodeError as exc:
        at = len(mark) + exc.start
        raise InvalidArgument.at(name, f"is not {encoding}: byte {data[at]:#04x} at offset {at}") from exc


def html_text(page: str) -> tuple[str, str]:
    """The title, ``<title>`` or else the first ``<h1>``, and the text: blocks with blank lines between."""
    tree = LexborHTMLParser(page)
    title = tree.css_first("title") or tree.css_first("h1")
    spelled = " ".join(title.text().split()) if title is not None else ""
    return spelled, _visible(tree.body) if tree.body is not None else ""


def _declared(data: bytes) -> str:
    found = _CHARSET.search(data[:_HEAD_BYTES])
    declared = found[1].decode("ascii", "replace").lower() if found is not None else "utf-8"
    # The HTML standard reads these as Windows-1252, and UTF-16 in an ASCII declaration as UTF-8.
    if declared in ("iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii"):
        return "cp1252"
    return "utf-8" if declared.startswith("utf-16") else declared


def _visible(body: LexborNode) -> str:
    pieces: list[str] = []
    gap = ""
    ahead: list[tuple[LexborNode | str, bool]] = [(body, False)]  # no recursion: pages nest deeply
    while ahead:
        item, verbatim = ahead.pop()
        if isinstance(item, str):
            gap = _wider(gap, item)
        elif item.tag == "-text":
            before, text, after = _parted(item.text_content or "", verbatim=verbatim)
            gap = _wider(gap, before)
            if text:
                pieces += gap, text
                gap = after
        elif item.tag == "br":
            gap = _wider(gap, "\n\n" if "\n" in gap else "\n")
        elif item.tag not in _INVISIBLE:
            space = _BREAKS.get(item.tag or "", "")
            inside = verbatim or item.tag == "pre"
            ahead.append((space, verbatim))
            ahead.extend((child, inside) for child in reversed(list(item.iter(include_text=True))))
            gap = _wider(gap, space)
    return re.sub(r"\n(?:[^\S\n]*\n)+", "\n\n", "".join(pieces)).strip()


def _wider(gap: str, other: str) -> str:
    """Gaps do not add up: between two blocks, one inside the other, there is one blank line."""
    return max(gap, other, key=lambda each: (each.count("\n"), each))


def _parted(text: str, *, verbatim: bool) -> tuple[str, str, str]:
    """The space before a text, the text with single spaces, the space behind it."""
    if verbatim:
        return "", text, ""
    words = " ".join(text.split())
    return " " * text[:1].isspace(), words, " " * text[-1:].isspace()
