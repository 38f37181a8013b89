"""Bytes of one chunk in each store, from the layouts of the stores themselves. Pure arithmetic.

Every function returns bytes of one chunk (a float: shares of pages and of upper layers are expectations). The
tests build each index for real and hold its files to these formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Storage = Literal["float32", "fp16", "sq8"]
"""What a graph is walked over."""

_CODE_BYTES: Final = {"float32": 4.0, "fp16": 2.0, "sq8": 1.0}
_FLOAT: Final = 4
_KEY: Final = 8
_LINK: Final = 4
_LARGEST_LISTS: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytes:
    """Bytes of one chunk: ``disk`` is what files grow by, ``memory`` what any search may touch of it."""

    disk: float
    memory: float = 0.0


# -- the embedded engine: Ragstone's segments around FAISS's structures ---------------------------


def raw_vectors(dim: int, *, scanned: bool) -> Bytes:
    """``NAME.vectors``: float32, ``4 * dim``. A flat index scans all of them; others read a few a search."""
    size = _FLOAT * dim
    return Bytes(disk=size, memory=size if scanned else 0)


def keys() -> Bytes:
    """``NAME.keys``: one int64."""
    return Bytes(disk=_KEY, memory=_KEY)


def hnsw_links(m: int) -> float:
    """Bytes of a node's links: ``4 * (2 m + m / (m - 1))``.

    FAISS (``HNSW::set_default_probas``) gives a node ``2 m`` links of 4 bytes on layer 0 and ``m`` on each
    upper layer, which a node reaches with the probability ``m ** -layer``: ``1 / (m - 1)`` layers on average.
    """
    return _LINK * (2 * m + m / (m - 1))


def faiss_hnsw(dim: int, *, m: int = 16, storage: Storage = "sq8") -> Bytes:
    """``NAME.index`` of an ``IndexHNSW``: links, 12 bytes a node, and the codes that are walked over.

    FAISS writes ``levels`` (int32) and ``offsets`` (int64) beside the links, then its storage: ``dim``
    numbers of 4 (flat), 2 (``QT_fp16``) or 1 byte (``QT_8bit``). All of it is hot: a walk goes anywhere.
    """
    size = hnsw_links(m) + 4 + 8 + dim * _CODE_BYTES[storage]
    return Bytes(disk=size, memory=size)


def ivf_lists(rows: int, nlist: int | None = None) -> int:
    """The lists of an inverted file: the square root of the rows, as ``IvfBuilder`` has it."""
    return max(1, min(nlist or round(math.sqrt(rows)), rows, _LARGEST_LISTS))


def faiss_ivf_flat(dim: int, *, rows: int, nlist: int | None = None) -> Bytes:
    """``NAME.index`` of an ``IndexIVFFlat``: ``4 * dim`` and an 8-byte id a vector, and the centroids."""
    size = _FLOAT * dim + 8 + _FLOAT * dim * ivf_lists(rows, nlist) / rows
    return Bytes(disk=size, memory=size)


def faiss_ivf_pq(dim: int, *, rows: int, nlist: int | None = None) -> Bytes:
    """``NAME.index`` of an ``IndexIVFPQFastScan``: 4 bits for each two dimensions, an 8-byte id, centroids.

    Fast scan stores codes in blocks of 32 vectors, so a list ends with 15.5 empty places on average
    (``BlockInvertedLists``). 16 code words of ``4 * dim`` bytes are shared by all.
    """
    lists = ivf_lists(rows, nlist)
    pieces = dim // 2 if dim % 2 == 0 else dim
    code = math.ceil(pieces / 2)
    shared = lists * (15.5 * code + _FLOAT * dim) + 16 * _FLOAT * dim
    size = code + 8 + shared / rows
    return Bytes(disk=size, memory=size)


# -- pgvector -----------------------------------------------------------------------------------

_PAGE: Final = 8_192
_PAGE_HEADER: Final = 24
_ITEM: Final = 4
"""A line pointer of a page."""
_TOAST_ABOVE: Final = 2_032
_TOAST_CHUNK: Final = 1_996
_BTREE_FILL: Final = 0.9
_REPEATS: Final = 256


def _aligned(size: float) -> int:
    return math.ceil(size / 8) * 8


def _pg_vector(dim: int, half: bool) -> int:
    """pgvector's own value: a header of 8 bytes, then 4 (``vector``) or 2 (``halfvec``) a dimension."""
    return 8 + (2 if half else 4) * dim


def pgvector_hnsw(dim: int, *, m: int = 16, half: bool = False) -> Bytes:
    """The HNSW index of pgvector (``src/hnsw.h``): two tuples a vector, on one page where they fit.

    The element's: 72 bytes (type, level, 10 heap pointers of 6 bytes, the neighbours' place) and the vector.
    The neighbours': 4 bytes and 6 for each of ``(level + 2) * m`` links. Each is aligned to 8 and has a line
    pointer of 4; a page of 8,192 bytes has 24 of header and 8 of pgvector's own.
    """
    element = _aligned(72 + _pg_vector(dim, half)) + _ITEM
    neighbours = _aligned(4 + 6 * 2 * m) + 6 * m / (m - 1) + _ITEM
    usable = _PAGE - _PAGE_HEADER - 8
    fitting = math.floor(usable / (element + neighbours))
    size = _PAGE / fitting if fitting else 2.0 * _PAGE
    return Bytes(disk=size, memory=size)


def pgvector_table(dim: int, *, half: bool = False, payload: float = 0.0) -> Bytes:
    """The table behind it: a bigint key, the vector and ``payload`` bytes, and the key's B-tree.

    A row has 24 bytes of header; one above 2,032 bytes keeps its vector in chunks of 1,996 elsewhere (TOAST),
    each a row with its own index entry. pgvector's type is stored ``external``: never compressed. A search
    reads only the rows of its hits.
    """
    vector = _pg_vector(dim, half)
    row, toast = 24 + _KEY + vector + payload, 0.0
    if row > _TOAST_ABOVE:
        whole, rest = divmod(vector - 4, _TOAST_CHUNK)
        chunks = [_TOAST_CHUNK] * whole + [rest] * bool(rest)
        toast = _pages([_aligned(36 + chunk) + _ITEM for chunk in chunks]) + len(chunks) * _btree_entry(8)
        row = 24 + _KEY + 18 + payload
    heap = _pages([_aligned(row) + _ITEM])
    return Bytes(disk=heap + toast + _btree_entry(8), memory=_btree_entry(8))


def _pages(pieces: Sequence[float]) -> float:
    """Bytes of pages for these rows, again and again: one that does not fit opens the next page."""
    pages, free = 1, float(_PAGE - _PAGE_HEADER)
    for piece in list(pieces) * _REPEATS:
        if piece > free:
            pages, free = pages + 1, float(_PAGE - _PAGE_HEADER)
        free -= piece
    return pages * _PAGE / _REPEATS


def _btree_entry(key: int) -> float:
    """An entry of a B-tree that was filled in order: 8 bytes of header, the key, a line pointer, 90% full."""
    return (_aligned(8 + key) + _ITEM) / _BTREE_FILL


# -- Qdrant -------------------------------------------------------------------------------------

_QDRANT_FACTOR: Final = 1.5


def qdrant(dim: int, *, m: int = 16, quantised: bool = False, payload: float = 0.0) -> Bytes:
    """Qdrant's own rule: ``memory = vectors * dim * 4 bytes * 1.5`` (its documentation, "Capacity Planning").

    The half on top is for indexes, point versions and segments while they are optimised. With 8-bit scalar
    quantisation kept in memory and the vectors on disk, the same factor is taken over 1 byte a dimension and
    ``2 m`` links of 4 bytes: that reading is Ragstone's, Qdrant publishes no formula for it.
    """
    full = _FLOAT * dim * _QDRANT_FACTOR
    if not quantised:
        return Bytes(disk=full + payload, memory=full)
    small = (dim + 2 * m * _LINK) * _QDRANT_FACTOR
    return Bytes(disk=full + dim + payload, memory=small)


# -- token vectors ------------------------------------------------------------------------------

_LMDB_PAGE: Final = 4_096
_LMDB_HEADER: Final = 16
_LMDB_NODE: Final = 8


def lmdb_tokens(tokens: float, *, dim: int = 128, keep: float = 0.34) -> Bytes:
    """Token vectors of a passage: ``keep`` of its tokens, each ``dim`` bytes and a scale of 4, packed.

    LMDB gives a value of more than half a page whole pages of its own, of 4,096 bytes (``mdb.c``,
    ``me_nodemax``), of which the last is half empty on average. A search reads those of its candidates.
    """
    packed = 8 + max(1, round(keep * tokens)) * (dim + 4)
    node = _LMDB_NODE + _KEY + packed
    if node <= (_LMDB_PAGE - _LMDB_HEADER) / 2 - 2:
        return Bytes(disk=_LMDB_PAGE / math.floor((_LMDB_PAGE - _LMDB_HEADER) / (node + 2)))
    whole = max(_LMDB_PAGE, _LMDB_HEADER + packed + _LMDB_PAGE / 2)
    return Bytes(disk=whole + _LMDB_NODE + 2 * _KEY)


# -- the catalog --------------------------------------------------------------------------------

_SQLITE_PAGE: Final = 4_096
_RANDOM_FILL: Final = math.log(2)
"""How full the pages of a B-tree are whose keys come in no order (Yao, 1978)."""
_SPACE_NAME: Final = 51
_HASH: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """How long a chunk's texts are, in bytes of UTF-8, the mean."""

    chunk: float
    document: float
    """The whole document's text."""
    chunks_a_document: float
    document_id: float = 32
    title: float = 40
    metadata: float = 64
    """Of a document, as JSON."""


def catalog_texts(texts: Texts) -> Bytes:
    """A chunk's row in the catalog (``retrieval/store/schema.py``), and its share of its document's.

    A chunk keeps its own copy of id, title and metadata, so that a search joins nothing. Beside the texts a
    chunk has 58 bytes (keys, places, hash, language, chunking), a document 30; two indexes find a live chunk
    by its place in the journal and by its document, two a document by its id and by its last write.
    """
    chunk = (
        sqlite_row(58 + texts.chunk + 2 * texts.document_id + 11 + texts.title + texts.metadata)
        + sqlite_index(18, ordered=True) * 1.5
    )
    document = (
        sqlite_row(30 + texts.document + texts.document_id + texts.title + texts.metadata)
        + sqlite_index(texts.document_id, ordered=False)
        + sqlite_index(8, ordered=True)
    )
    return Bytes(disk=chunk + document / texts.chunks_a_document)


def catalog_embedding(dim: int) -> Bytes:
    """A stored embedding: space, hash, float32 vector; and its primary key, whose hashes come in no order."""
    cell = 6 + _SPACE_NAME + _HASH + _FLOAT * dim + 8
    fitting = math.floor((_SQLITE_PAGE - 8) / cell)
    row = _SQLITE_PAGE / fitting if fitting else sqlite_row(cell - 8)
    return Bytes(disk=row + sqlite_index(_SPACE_NAME + _HASH, ordered=False))


def sqlite_row(payload: float) -> float:
    """A row of a SQLite table that grows at its end, with ``payload`` bytes that vary from row to row.

    By its file format (sqlite.org/fileformat2.html): a leaf of 4,096 bytes has 8 of header, a cell some 6 of
    rowid and length and a pointer of 2; half a cell stays empty on average. What is above 4,061 bytes goes on
    to pages of its own, each with a pointer of 4.
    """
    usable, most = _SQLITE_PAGE - 8, _SQLITE_PAGE - 35
    if payload > most:
        # Of a long row about an eighth of a page stays in the tree, the rest fills pages of its own.
        return 500 + math.ceil((payload - 500) / (_SQLITE_PAGE - 4)) * _SQLITE_PAGE
    cell = payload + 8
    return cell * _SQLITE_PAGE / (usable - min(cell, usable / 2) / 2)


def sqlite_index(columns: float, *, ordered: bool) -> float:
    """An entry of an index: its columns and the rowid; full pages in order, ``ln 2`` of them otherwise."""
    return (columns + 8) / (1.0 if ordered else _RANDOM_FILL)
