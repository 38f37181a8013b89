"""Steady mixed traffic from a process of its own, which remembers what was acknowledged to it.

Searches, upserts and deletions each begin at random moments of a fixed rate, whether or not what began
before has ended: a server that stops for a second is seen by every request of that second.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import monotonic
from typing import Self, TypeVar

from ragstone import AsyncClient, Document
from ragstone.errors import RagstoneError
from ragstone.types import SearchResult

T = TypeVar("T")

COMMON = "entry"
"""A word of every document: a census finds them all by it."""
_TIMEOUT_S = 30.0
_SAMPLE = 200
"""Documents that a census looks for by their own words, beside those that the traffic has touched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Requests a second."""

    searches: float = 20.0
    upserts: float = 2.0
    deletes: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request. ``due`` is when it should have begun and ``done`` when it ended, monotonic seconds."""

    what: str
    due: float
    done: float
    version: str = ""
    error: str = ""
    stages_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def ms(self) -> float:
        """How long a user waited."""
        return (self.done - self.due) * 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What the server has, compared with what it has acknowledged, while nobody writes."""

    documents: int
    lost: Sequence[str]
    """What should be there: document ids, each with where it was missed."""
    revived: Sequence[str]
    """What should not be there: deleted documents and texts that were replaced."""


class Traffic:
    """The traffic's process, for the length of a ``with`` block."""

    def __init__(
        self, address: str, collection: str, *, stored: Mapping[str, str], texts: Sequence[str], rates: Rates
    ) -> None:
        """``stored`` is what the collection has, id -> text. New ones and queries are made of ``texts``."""
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(
            target=_run, args=(there, address, collection, dict(stored), list(texts), rates), daemon=True
        )

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def census(self) -> Census:
        """Let the writes in hand end, compare, and let writes go on. Searches do not stop."""
        self._pipe.send("census")
        census: Census = self._pipe.recv()
        return census

    def sent(self) -> list[Sent]:
        """Every request that has ended since the last call."""
        self._pipe.send("sent")
        sent: list[Sent] = self._pipe.recv()
        return sent


def _run(
    pipe: Connection,
    address: str,
    collection: str,
    stored: dict[str, str],
    texts: list[str],
    rates: Rates,
) -> None:
    asyncio.run(_serve(pipe, address, collection, stored, texts, rates))


async def _serve(
    pipe: Connection,
    address: str,
    collection: str,
    stored: dict[str, str],
    texts: list[str],
    rates: Rates,
) -> None:
    async with AsyncClient(address, timeout=_TIMEOUT_S) as client, asyncio.TaskGroup() as streams:
        user = _User(client, collection, stored, texts)
        for rate, act in (
            (rates.searches, user.search),
            (rates.upserts, user.upsert),
            (rates.deletes, user.delete),
        ):
            if rate:
                streams.create_task(_at_random_moments(rate, act))
        while True:
            command = await asyncio.to_thread(pipe.recv)
            pipe.send(await user.census() if command == "census" else user.take_sent())


async def _at_random_moments(rate: float, act: Callable[[float], Coroutine[None, None, None]]) -> None:
    """Begin ``act`` ``rate`` times a second, independently of how long it takes."""
    chance, due = random.Random(rate), monotonic()
    async with asyncio.TaskGroup() as acts:
        while True:
            due += chance.expovariate(rate)
            await asyncio.sleep(due - monotonic())
            acts.create_task(act(due))


class _User:
    """Sends requests, and keeps a model of what was acknowledged."""

    def __init__(
        self, client: AsyncClient, collection: str, stored: dict[str, str], texts: Sequence[str]
    ) -> None:
        self._client = client
        self._collection = collection
        self._stored = stored
        self._texts = texts
        self._chance = random.Random(5)
        self._asked = 0
        self._written = 0
        self._sent: list[Sent] = []
        self._busy: set[str] = set()
        """Documents that a write holds: no other one touches them."""
        self._touched: set[str] = set()
        self._gone: set[str] = set()
        """Words of deleted documents and of replaced texts."""
        self._counting = False
        """While a census is taken nothing is written."""
        self._idle = asyncio.Condition()

    def take_sent(self) -> list[Sent]:
        taken, self._sent = self._sent, []
        return taken

    # -- requests --------------------------------------------------------------------------------

    async def search(self, due: float) -> None:
        """A hybrid search for a text that was not asked for before."""
        self._asked += 1
        await self._search(due, self._texts[-self._asked % len(self._texts)], mode="hybrid")

    async def upsert(self, due: float) -> None:
        """A new document, or another text for one that is there; a search finds it at once."""
        if self._counting:
            return
        self._written += 1
        key = f"new-{self._written}" if self._written % 2 else self._any_document()
        own = f"zqw{self._written}"
        sentences = self._chance.choices(self._texts, k=self._chance.randint(1, 5))
        text = document_text(own, " ".join(sentences))
        async with self._writing(key):
            before = self._stored.get(key)
            asking = self._client.upsert(self._collection, [Document(id=key, text=text)])
            if await self._send("upsert", due, asking) is None:
                return
            self._stored[key] = text
            if before is not None:
                self._gone.add(own_word(before))
            await self._expect(own, [key])

    async def delete(self, due: float) -> None:
        """Delete a document; a search finds it no more."""
        if self._counting:
            return
        key = self._any_document()
        async with self._writing(key):
            asking = self._client.delete(self._collection, ids=[key])
            if await self._send("delete", due, asking) is None:
                return
            own = own_word(self._stored.pop(key))
            self._gone.add(own)
            await self._expect(own, [])

    async def _expect(self, word: str, keys: Sequence[str]) -> None:
        """Read one's own write: by its word exactly the documents ``keys`` are found."""
        due = monotonic()
        result = await self._search(due, word, mode="lexical")
        if result is not None and sorted({hit.document_id for hit in result.hits}) != sorted(keys):
            told = f"{word} finds {len(result.hits)} hits in {result.version}, not those of {keys}"
            self._sent.append(Sent(what="read own write", due=due, done=monotonic(), error=told))

    async def _search(self, due: float, text: str, *, mode: str) -> SearchResult | None:
        asking = self._client.search(self._collection, text, mode=mode)
        return await self._send(f"search {mode}", due, asking)

    async def _send(self, what: str, due: float, asking: Awaitable[T]) -> T | None:
        try:
            answer = await asking
        except RagstoneError as exc:
            told = f"{type(exc).__name__}: {exc}"
            self._sent.append(Sent(what=what, due=due, done=monotonic(), error=told))
            return None
        done, version, stages, error = monotonic(), "", {}, ""
        if isinstance(answer, SearchResult):
            version, stages = answer.version, dict(answer.timings_ms)
            error = f"degraded: {', '.join(answer.degraded)}" if answer.degraded else ""
        self._sent.append(Sent(what=what, due=due, done=done, version=version, error=error, stages_ms=stages))
        return answer

    def _any_document(self) -> str:
        keys = [key for key in self._stored if key not in self._busy]
        return self._chance.choice(keys)

    @asynccontextmanager
    async def _writing(self, key: str) -> AsyncIterator[None]:
        self._busy.add(key)
        self._touched.add(key)
        try:
            yield
        finally:
            self._busy.discard(key)
            async with self._idle:
                self._idle.notify_all()

    # -- the census --------------------------------------------------------------------------------

    async def census(self) -> Census:
        """Everything that is stored, by listing and by searching in both legs."""
        self._counting = True
        try:
            async with self._idle:
                await self._idle.wait_for(lambda: not self._busy)
            return await self._compare()
        finally:
            self._counting = False

    async def _compare(self) -> Census:
        lost: list[str] = []
        revived: list[str] = []
        listed = {
            document.id: document.text
            async for document in self._client.list_documents(self._collection, page_size=1_000)
        }
        self._judge("listing", listed.keys(), lost, revived)
        revived += [f"{key}: an old text" for key in listed if listed[key] != self._stored.get(key)]
        for leg in ("dense", "lexical"):
            found = await self._chunks(leg)
            self._judge(leg, found.keys(), lost, revived)
            for key, texts in found.items():
                whole = self._stored.get(key, "")
                revived += [f"{key}: an old chunk in {leg}" for text in texts if text not in whole]
                if not any(own_word(whole) in text for text in texts):
                    lost.append(f"{key}: its first chunk in {leg}")
        await self._judge_words(lost, revived)
        return Census(documents=len(listed), lost=lost, revived=revived)

    async def _chunks(self, leg: str) -> dict[str, list[str]]:
        """All chunks that a leg finds, by document."""
        found: dict[str, list[str]] = {}
        pages = self._client.search_pages(self._collection, COMMON, mode=leg, k=1_000, depth=10_000)
        async for page in pages:
            for hit in page.hits:
                found.setdefault(hit.document_id, []).append(hit.text)
        return found

    async def _judge_words(self, lost: list[str], revived: list[str]) -> None:
        """Touched documents, some others, and what is gone: each by a word that is its own."""
        sample = self._chance.sample(sorted(self._stored), min(_SAMPLE, len(self._stored)))
        lost += [
            f"{key}: by its own word"
            for key in sorted(self._touched & self._stored.keys() | set(sample))
            if await self._owners(own_word(self._stored[key])) != {key}
        ]
        revived += [f"the word {word}" for word in sorted(self._gone) if await self._owners(word)]
        self._touched.clear()
        self._gone.clear()

    async def _owners(self, word: str) -> set[str]:
        result = await self._client.search(self._collection, word, mode="lexical")
        return {hit.document_id for hit in result.hits}

    def _judge(self, where: str, found: Set[str], lost: list[str], revived: list[str]) -> None:
        lost += [f"{key}: by {where}" for key in self._stored.keys() - found]
        revived += [f"{key}: by {where}" for key in found - self._stored.keys()]


def document_text(own: str, text: str) -> str:
    """A text that a search for ``own`` finds, and no other word of any document does."""
    return f"{COMMON.capitalize()} {own}: {text}"


def own_word(text: str) -> str:
    """The inverse of ``document_text``; empty for what it did not make."""
    return text.partition(":")[0].removeprefix(f"{COMMON.capitalize()} ")
