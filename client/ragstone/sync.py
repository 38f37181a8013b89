"""The blocking client: the surface of ``AsyncClient``, on gRPC's blocking channel."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from google.protobuf.message import Message

from ragstone import calls, status
from ragstone.calls import Call, Embeddings, Health, SearchOptions
from ragstone.channel import TLS, destination
from ragstone.errors import BackendUnavailable, FailedPrecondition, RagstoneError
from ragstone.importing import Import, OnProgress
from ragstone.types import (
    AnswerEvent,
    Collection,
    Document,
    Fusion,
    Mode,
    Query,
    Recipe,
    SearchResult,
    ServerInfo,
    VectorLike,
    Version,
    Wait,
    WriteResult,
)

T = TypeVar("T")


class Client:
    """A connection to a Ragstone server; safe to share between threads.

    Every call has a deadline: its own ``timeout`` in seconds, else the client's. Every error is a
    ``RagstoneError``; ``BackendUnavailable`` is what a server that does not answer raises. A call
    that runs into its deadline stops its work on the server.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        token: str | None = None,
        tls: TLS | bool | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._to = destination(address, token=token, tls=tls, timeout=timeout)
        self._channel = self._open()
        self._stubs: dict[str, Any] = {}
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls on their way are cancelled."""
        self._closed = True
        self._stubs.clear()
        self._channel.close()

    # -- collections and versions -------------------------------------------------------------

    def create_collection(
        self, name: str, *, recipe: Recipe | None = None, timeout: float | None = None
    ) -> Collection:
        """Create a collection. Raises AlreadyExists, or InvalidArgument for a wrong name or recipe."""
        return self._unary(calls.create_collection(name, recipe), timeout)

    def get_collection(self, name: str, *, timeout: float | None = None) -> Collection:
        """One collection. Raises NotFound."""
        return self._unary(calls.get_collection(name), timeout)

    def list_collections(self, *, timeout: float | None = None) -> list[Collection]:
        """All collections, by name."""
        return self._unary(calls.list_collections(), timeout)

    def delete_collection(self, name: str, *, timeout: float | None = None) -> None:
        """Delete a collection and all that it holds. Raises NotFound."""
        self._unary(calls.delete_collection(name), timeout)

    def compact(self, collection: str, *, timeout: float | None = None) -> Collection:
        """Merge the serving version's small parts; answers do not change. Raises NotFound."""
        return self._unary(calls.compact(collection), timeout)

    def versions(self, collection: str, *, timeout: float | None = None) -> list[Version]:
        """All index versions of a collection, oldest first. Raises NotFound."""
        return self._unary(calls.versions(collection), timeout)

    def get_version(self, collection: str, name: str, *, timeout: float | None = None) -> Version:
        """One index version. Raises NotFound."""
        return self._unary(calls.get_version(collection, name), timeout)

    # -- documents ----------------------------------------------------------------------------

    def upsert(
        self,
        collection: str,
        documents: Sequence[Document],
        *,
        request_id: str | None = None,
        wait: Wait | str = Wait.INDEXED,
        timeout: float | None = None,
    ) -> WriteResult:
        """Store documents, all or none, replacing those of the same ids.

        A repeated ``request_id`` is answered from the first request. Raises InvalidArgument naming what
        is wrong, also for more than 1,000 documents: ``import_documents`` takes any number.
        """
        return self._unary(calls.upsert(collection, documents, request_id, wait), timeout)

    def import_documents(
        self,
        collection: str,
        documents: Iterable[Document],
        *,
        wait: Wait | str = Wait.COMMITTED,
        batch: int = 1000,
        on_progress: OnProgress | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Store any number of documents, ``batch`` at a time, each batch all or none; returns the totals.

        Goes at the server's pace, and goes on by itself after the connection broke. ``on_progress`` gets
        the totals so far. ``timeout`` bounds one connection; without one there is no deadline. Raises what
        ``upsert`` raises; what was acknowledged before stays.
        """
        state = Import(collection, wait=wait, batch=batch, on_progress=on_progress)
        source = state.requests(iter(documents))
        while True:
            try:
                self._import(state, source, timeout)
            except BackendUnavailable:
                delay_s = state.next_delay_s()
                if delay_s is None:
                    raise
                time.sleep(delay_s)
            else:
                return state.result

    def get_document(self, collection: str, document_id: str, *, timeout: float | None = None) -> Document:
        """One document. Raises NotFound."""
        return self._unary(calls.get_document(collection, document_id), timeout)

    def list_documents(
        self, collection: str, *, page_size: int = 100, timeout: float | None = None
    ) -> Iterator[Document]:
        """All documents by id, fetched ``page_size`` at a time. Raises NotFound."""
        token = ""
        while True:
            call = calls.list_documents(collection, page_size, token)
            documents, token = self._unary(call, timeout)
            yield from documents
            if not token:
                return

    def delete(
        self,
        collection: str,
        *,
        ids: Sequence[str] | None = None,
        filter: str | None = None,
        request_id: str | None = None,
        wait: Wait | str = Wait.INDEXED,
        timeout: float | None = None,
    ) -> WriteResult:
        """Delete by ``ids`` or by ``filter``. Ids that are not stored are no error.

        Raises InvalidArgument unless exactly one of the two is given, InvalidFilter with the column.
        """
        return self._unary(calls.delete(collection, ids, filter, request_id, wait), timeout)

    # -- retrieval ----------------------------------------------------------------------------

    def search(
        self,
        collection: str,
        text: str = "",
        *,
        vector: VectorLike | None = None,
        space: str | None = None,
        k: int = 10,
        mode: Mode | str = Mode.HYBRID,
        filter: str = "",
        language: str | None = None,
        fusion: Fusion | str | None = None,
        depth: int | None = None,
        explain: bool = False,
        page_token: str = "",
        min_seq: int | None = None,
        timeout: float | None = None,
    ) -> SearchResult:
        """The passages that answer a query, best first; ``Query`` says what each argument means.

        Raises NotFound, InvalidArgument naming the field, InvalidFilter with the column,
        InvalidPageToken, SpaceMismatch, Overloaded, DeadlineExceeded.
        """
        asked = calls.query(
            text,
            fusion,
            vector=vector,
            space=space,
            k=k,
            mode=mode,
            filter=filter,
            language=language,
            depth=depth,
            explain=explain,
            page_token=page_token,
            min_seq=min_seq,
        )
        return self._unary(calls.search(collection, asked), timeout)

    def search_pages(
        self,
        collection: str,
        text: str = "",
        *,
        timeout: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Iterator[SearchResult]:
        """All pages of a search, ``k`` hits each; no hit comes twice. Like ``search`` otherwise."""
        token: str | None = ""
        while token is not None:
            result = self.search(collection, text, page_token=token, timeout=timeout, **options)
            yield result
            token = result.next_page_token or None

    def batch_search(
        self, collection: str, queries: Sequence[Query], *, timeout: float | None = None
    ) -> list[SearchResult]:
        """One result a query, in their order, all from one state of the collection."""
        return self._unary(calls.batch_search(collection, queries), timeout)

    def answer(
        self,
        collection: str,
        question: str,
        *,
        k: int = 5,
        mode: Mode | str = Mode.HYBRID,
        filter: str = "",
        language: str | None = None,
        fusion: Fusion | str | None = None,
        depth: int | None = None,
        min_seq: int | None = None,
        timeout: float | None = None,
    ) -> Iterator[AnswerEvent]:
        """The answer to a question as it comes: Contexts, TextDelta, Citation, Usage, Done.

        Leaving the iteration early stops the generation. Raises what ``search`` raises.
        """
        asked = calls.query(
            question,
            fusion,
            k=k,
            mode=mode,
            filter=filter,
            language=language,
            depth=depth,
            min_seq=min_seq,
        )
        call = calls.answer(collection, asked)
        stream = self._stub("unary_stream", call.method)(call.request, **self._terms(timeout))
        try:
            for reply in stream:
                event = call.read(reply)
                if event is not None:
                    yield event
        except grpc.RpcError as exc:
            raise self._error(exc) from exc
        finally:
            stream.cancel()

    def embed(
        self, collection: str, texts: Sequence[str], *, kind: str = "query", timeout: float | None = None
    ) -> Embeddings:
        """Vectors of texts as the collection embeds them, as ``query`` or as ``passage``."""
        return self._unary(calls.embed(collection, texts, kind), timeout)

    def info(self, *, timeout: float | None = None) -> ServerInfo:
        """What the server is and what it accepts."""
        return self._unary(calls.info(), timeout)

    def health(self, service: str = "", *, timeout: float | None = None) -> Health:
        """Whether the server, or one of its services, takes calls. Raises NotFound for no such service."""
        return self._unary(calls.health(service), timeout)

    # -- the wire -----------------------------------------------------------------------------

    def _unary(self, call: Call[T], timeout: float | None) -> T:
        try:
            reply = self._stub("unary_unary", call.method)(call.request, **self._terms(timeout))
        except grpc.RpcError as exc:
            raise self._error(exc) from exc
        return call.read(reply)

    def _import(self, state: Import, source: Iterator[Message], timeout: float | None) -> None:
        """Send over one connection until all is acknowledged or the connection fails."""
        outgoing: SimpleQueue[Message | None] = SimpleQueue()
        stub = self._stub("stream_stream", calls.IMPORT)
        stream = stub(iter(outgoing.get, None), timeout=timeout, metadata=self._to.metadata)
        state.connect()
        more = True
        try:
            while more or state.pending:
                while more and state.has_room:
                    following = state.resend() or next(source, None)
                    more = following is not None
                    outgoing.put(following)
                if state.pending:
                    state.receive(_read(stream))
            with suppress(grpc.RpcError):  # all is acknowledged; the server sees an end in order
                next(stream, None)
        except grpc.RpcError as exc:
            raise self._error(exc) from exc
        finally:
            outgoing.put(None)
            stream.cancel()

    def _stub(self, kind: str, method: calls.Method) -> Any:
        """The channel's callable of a method."""
        stub = self._stubs.get(method.path)
        if stub is None:
            if self._closed:
                raise FailedPrecondition("the client is closed")
            make = getattr(self._channel, kind)
            stub = make(method.path, request_serializer=_serialize, response_deserializer=method.parse)
            self._stubs[method.path] = stub
        return stub

    def _open(self) -> grpc.Channel:
        if self._to.tls is None:
            return grpc.insecure_channel(self._to.address, self._to.options)
        return grpc.secure_channel(self._to.address, self._to.tls.credentials(), self._to.options)

    def _terms(self, timeout: float | None) -> dict[str, Any]:
        timeout_s = self._to.timeout_s if timeout is None else timeout
        return {"timeout": timeout_s, "metadata": self._to.metadata}

    def _error(self, error: Any) -> RagstoneError:
        trailers = error.trailing_metadata()
        return status.from_call(error.code().name, error.details(), trailers, target=self._to.address)


def _read(stream: Any) -> Any:
    """The next response. Raises BackendUnavailable when the server ended the stream too early."""
    try:
        return next(stream)
    except StopIteration:
        raise BackendUnavailable("the server ended an import before it had acknowledged everything") from None


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
