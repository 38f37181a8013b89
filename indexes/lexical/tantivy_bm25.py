"""BM25 on tantivy: one index on disk for all languages.

Terms are made here and reach tantivy joined by spaces, so that every back end ranks the same terms; a
query is built term by term, never parsed. Each commit carries, in a document of its own, the journal
position it has reached: what a crash leaves behind is one commit or the other.

Deleted documents stay in BM25's statistics until tantivy merges their segment.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numpy as np
import tantivy
from pyroaring import BitMap64

from indexes.base import IndexStats, Neighbours, TextBatch
from indexes.directory import Directory
from indexes.lexical.analysis import Analyser
from indexes.lexical.options import LexicalOptions, parse_options
from indexes.lexical.query_terms import GroupQuery, group_queries, idf, language_of
from ragstone.errors import BackendUnavailable, CorruptIndex, FailedPrecondition

_FOLDER: Final = "tantivy"
_TERMS: Final = "terms"
_LANGUAGE: Final = "language"
_KEY: Final = "key"
_SEQ: Final = "seq"

_HEAP_BYTES: Final = 64 * 1024 * 1024
_SEARCH_THREADS: Final = 2
_SPARE_HITS: Final = 8

Hits = list[tuple[Any, tantivy.DocAddress]]
Ranked = list[tuple[float, int]]
T = TypeVar("T")


async def open_index(*, directory: Directory, options: Mapping[str, object]) -> TantivyIndex:
    """Open the index in ``directory``, or make an empty one there.

    Raises InvalidArgument for wrong options, CorruptIndex for damaged files, and FailedPrecondition
    while somebody else has it open.
    """
    parsed = parse_options(LexicalOptions, options)
    return await asyncio.to_thread(_open, directory, parsed)


def _open(directory: Directory, options: LexicalOptions) -> TantivyIndex:
    directory.subdirectory(_FOLDER)
    return TantivyIndex(directory.path(_FOLDER), options)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """One commit, as searches see it. ``documents`` counts each language's, the deleted ones included."""

    searcher: tantivy.Searcher
    seq: int
    documents: Mapping[str, int]


class TantivyIndex:
    """A lexical follower. One thread writes, two search; a search never waits for a write."""

    def __init__(self, path: Path, options: LexicalOptions) -> None:
        self._path = path
        self._options = options
        self._analyser = Analyser()
        self._schema = _schema()
        self._index = _open_files(path, self._schema)
        self._writer: tantivy.IndexWriter | None = self._new_writer()
        self._snapshot = self._look()
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="lexical-apply")
        self._searching = ThreadPoolExecutor(_SEARCH_THREADS, thread_name_prefix="lexical-search")

    @property
    def applied_seq(self) -> int:
        """The last journal position that a search sees."""
        return self._snapshot.seq

    async def apply(self, batch: TextBatch, *, seq: int) -> None:
        """Make ``batch`` visible and durable. Does nothing when ``seq <= applied_seq``.

        Raises BackendUnavailable when it cannot be written; then nothing of it is visible.
        """
        await self._run(self._writing, self._apply, batch, seq)

    async def search(
        self, query: str, k: int, *, allow: BitMap64 | None = None, language: str | None = None
    ) -> Neighbours:
        """The best ``k`` keys for one query: arrays of shape ``(1, k)``. Any text is a valid query."""
        return await self._run(self._searching, self.search_now, query, k, allow, language)

    def language_of(self, query: str, language: str | None) -> str:
        """The language that ``query`` is most likely in; "" where nobody can tell."""
        return language_of(query, self._options.fixed_language or language, self._snapshot.documents)

    async def checkpoint(self) -> int:
        """The ``seq`` of the last commit: commits are durable already.

        Searches see merged segments from here on.
        """
        return await self._run(self._writing, self._refresh)

    async def compact(self) -> None:
        """Wait until tantivy has merged all segments that it wants to merge, and search those."""
        await self._run(self._writing, self._merge)

    def stats(self) -> IndexStats:
        """What the index holds now."""
        snapshot = self._snapshot
        live = snapshot.searcher.num_docs - (snapshot.seq > 0)
        return IndexStats(
            live=live,
            deleted=sum(snapshot.documents.values()) - live,
            segments=snapshot.searcher.num_segments,
            bytes_on_disk=sum(map(_size, self._path.iterdir())),
            details={"languages": dict(snapshot.documents)},
        )

    async def close(self) -> None:
        """Release files and threads. Does not checkpoint."""
        await asyncio.to_thread(self._close)

    def search_now(
        self, query: str, k: int, allow: BitMap64 | None = None, language: str | None = None
    ) -> Neighbours:
        """``search`` in the calling thread."""
        snapshot = self._snapshot
        groups = group_queries(
            query, self._options.fixed_language or language, snapshot.documents, self._analyser
        )
        with _damage_reported():
            wanted = self._any_term(snapshot, groups)
            if k < 1 or wanted is None or (allow is not None and not allow):
                return _neighbours([], k)
            return _neighbours(self._best(snapshot.searcher, wanted, k, allow), k)

    # -- searching --------------------------------------------------------------------------------

    def _any_term(self, snapshot: _Snapshot, groups: list[GroupQuery]) -> tantivy.Query | None:
        """The query that scores each document by the terms of its own group; None when there are none."""
        everywhere = sum(snapshot.documents.values())
        clauses = []
        for group in groups:
            documents = snapshot.documents[group.language]
            for term, count in group.terms.items():
                named = _named(group.language, term)
                boost = count * group.weight
                if documents < everywhere:
                    # tantivy counts the documents of all languages; BM25 means those of this one.
                    containing = snapshot.searcher.doc_freq(_TERMS, named)
                    if not containing:
                        continue
                    boost *= idf(documents, containing) / idf(everywhere, containing)
                query = tantivy.Query.term_query(self._schema, _TERMS, named, index_option="freq")
                clauses.append((tantivy.Occur.Should, tantivy.Query.boost_query(query, boost)))
        return tantivy.Query.boolean_query(clauses) if clauses else None

    def _best(
        self, searcher: tantivy.Searcher, query: tantivy.Query, k: int, allow: BitMap64 | None
    ) -> Ranked:
        """The best ``k``, by descending score, then ascending key.

        tantivy breaks ties by position, and filters poorly by many keys; so more than ``k`` are fetched,
        twice as many each time, until the last one fetched is surely beyond the last one wanted.
        """
        everything = max(1, searcher.num_docs)
        limit = k + _SPARE_HITS
        if allow is not None:
            expected = (k + _SPARE_HITS) * everything / len(allow)
            if 2 * len(allow) <= expected:
                query, allow = self._among(query, allow), None
            else:
                limit = math.ceil(expected)
        while True:
            limit = min(limit, everything)
            hits = searcher.search(query, limit, count=False).hits
            keys = _numbers(searcher, _KEY, hits)
            ranked = [
                (-score, key)
                for (score, _), key in zip(hits, keys, strict=True)
                if allow is None or key in allow
            ]
            ranked.sort()
            is_all = len(hits) < limit or limit == everything
            if is_all or (len(ranked) >= k and hits[-1][0] < -ranked[k - 1][0]):
                return ranked[:k]
            limit *= 2

    def _among(self, query: tantivy.Query, allow: BitMap64) -> tantivy.Query:
        keys = tantivy.Query.term_set_query(self._schema, _KEY, list(allow))
        unscored = tantivy.Query.const_score_query(keys, 0.0)
        return tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Must, unscored)])

    # -- writing: only ever in the one writing thread ---------------------------------------------

    def _apply(self, batch: TextBatch, seq: int) -> None:
        if seq <= self._snapshot.seq:
            return
        documents = self._documents(batch)
        try:
            self._commit(documents, batch.deleted.tolist(), seq)
        except BaseException as exc:
            # Also a panic of Rust code, which is no Exception.
            self._abandon_writer()
            raise BackendUnavailable("the lexical index cannot be written") from exc
        self._snapshot = self._look()

    def _documents(self, batch: TextBatch) -> list[tantivy.Document]:
        languages = self._options.languages_of(batch)
        documents = []
        for key, text, language in zip(batch.keys.tolist(), batch.texts, languages, strict=True):
            terms = self._analyser.terms(text, language)
            document = tantivy.Document()
            document.add_unsigned(_KEY, key)
            document.add_text(_LANGUAGE, language)
            document.add_text(_TERMS, " ".join(_named(language, term) for term in terms))
            documents.append(document)
        return documents

    def _commit(self, documents: list[tantivy.Document], deleted: list[int], seq: int) -> None:
        writer = self._writer = self._writer or self._new_writer()
        self._delete(writer, _KEY, [key for key in deleted if key >= 0])
        self._delete(writer, _SEQ, [self._snapshot.seq])
        marker = tantivy.Document()
        marker.add_unsigned(_SEQ, seq)
        for document in (*documents, marker):
            writer.add_document(document)
        writer.commit()

    def _delete(self, writer: tantivy.IndexWriter, field: str, values: list[int]) -> None:
        # By query: deleting by term takes the number for a signed one, and finds nothing.
        if values:
            writer.delete_documents_by_query(tantivy.Query.term_set_query(self._schema, field, values))

    def _new_writer(self) -> tantivy.IndexWriter:
        try:
            writer = self._index.writer(heap_size=_HEAP_BYTES, num_threads=1)
        except ValueError as exc:
            raise FailedPrecondition("the lexical index is open elsewhere") from exc
        # A crash inside a commit leaves files that no commit names; the next commit would give some of
        # its own the same names, and fail.
        writer.garbage_collect_files()
        return writer

    def _abandon_writer(self) -> None:
        """Give up a writer that failed: it holds half a batch, and may refuse all further work."""
        writer, self._writer = self._writer, None
        if writer is not None:
            # Waiting uses it up, and so frees its lock although a traceback may still refer to it.
            with suppress(ValueError, RuntimeError):
                writer.wait_merging_threads()

    def _refresh(self) -> int:
        self._snapshot = self._look()
        return self._snapshot.seq

    def _merge(self) -> None:
        if self._writer is not None:
            self._writer.wait_merging_threads()
        self._writer = self._new_writer()
        self._refresh()

    def _look(self) -> _Snapshot:
        """The last commit. Raises CorruptIndex when its files are damaged."""
        with _damage_reported():
            self._index.reload()
            searcher = self._index.searcher()
            markers = searcher.search(
                tantivy.Query.exists_query(_SEQ), 1 + searcher.num_segments, count=False
            )
            seqs = _numbers(searcher, _SEQ, markers.hits)
            documents = dict(searcher.terms_with_prefix(_LANGUAGE, ""))
        return _Snapshot(searcher, max(seqs, default=0), documents)

    # -- threads ----------------------------------------------------------------------------------

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[..., T], *args: object) -> T:
        try:
            future = asyncio.get_running_loop().run_in_executor(pool, functools.partial(work, *args))
        except RuntimeError as exc:
            raise FailedPrecondition("the lexical index is closed") from exc
        return await future

    def _close(self) -> None:
        self._searching.shutdown()
        self._writing.shutdown()
        self._writer = None


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field(_TERMS, tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field(_LANGUAGE, tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field(_KEY, indexed=True, fast=True)
    builder.add_unsigned_field(_SEQ, indexed=True, fast=True)
    return builder.build()


def _open_files(path: Path, schema: tantivy.Schema) -> tantivy.Index:
    with _damage_reported():
        if not tantivy.Index.exists(str(path)) and any(path.glob("*.term")):
            raise CorruptIndex("the lexical index has lost its list of segments")
        index = tantivy.Index(schema, path=str(path), reuse=True)
        index.config_reader(reload_policy="manual")
        return index


@contextmanager
def _damage_reported() -> Iterator[None]:
    """Raises CorruptIndex where tantivy finds, or stumbles over, bytes that it did not write."""
    try:
        yield
    except (ValueError, OSError) as exc:
        raise CorruptIndex("the lexical index is damaged") from exc
    except BaseException as exc:
        # A panic of Rust code is no Exception, and its class cannot be imported.
        if type(exc).__name__ != "PanicException":
            raise
        raise CorruptIndex("the lexical index is damaged") from exc


def _numbers(searcher: tantivy.Searcher, field: str, hits: Hits) -> list[int]:
    """An unsigned field of each hit; all of them have it."""
    values = searcher.fast_field_values(field, [address for _, address in hits])
    if None in values:
        raise CorruptIndex("the lexical index is damaged")
    return cast(list[int], values)


def _size(file: Path) -> int:
    # A merge may remove a file between its listing and this look at it.
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _named(language: str, term: str) -> str:
    """``term`` as a term of that language's documents: no term holds a colon."""
    return f"{language}:{term}"


def _neighbours(ranked: Ranked, k: int) -> Neighbours:
    keys = np.full((1, k), -1, dtype=np.int64)
    scores = np.full((1, k), -np.inf, dtype=np.float32)
    if ranked:
        scores[0, : len(ranked)] = [-score for score, _ in ranked]
        keys[0, : len(ranked)] = [key for _, key in ranked]
    return Neighbours(keys, scores)
