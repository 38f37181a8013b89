"""What an import has sent and what of it is acknowledged; pure, shared by both clients.

The documents are cut into requests. A few are on their way at a time; those that were not acknowledged
when a connection broke are sent again on the next, under the same request ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final
from uuid import uuid4

from google.protobuf.message import Message

from ragstone import wire
from ragstone.errors import InvalidArgument
from ragstone.fields import build, encode_choice
from ragstone.types import Document, Wait, WriteResult
from ragstone.v1 import documents_pb2, values_pb2

WINDOW: Final = 4
"""Requests on their way at a time. A new connection begins with one, to learn whether it is taken."""
BATCH_BYTES: Final = 4 * 2**20
"""Where a request is cut, unless one document alone is larger."""
ATTEMPTS: Final = 6
"""Connections that may fail one after another without an acknowledgement between them."""

OnProgress = Callable[[WriteResult], None]


class Import:
    """One import. Raises InvalidArgument for wrong arguments."""

    def __init__(
        self, collection: str, *, wait: Wait | str, batch: int, on_progress: OnProgress | None
    ) -> None:
        if not 1 <= batch <= wire.MAX_DOCUMENTS:
            raise InvalidArgument.at("batch", f"must be between 1 and {wire.MAX_DOCUMENTS:,}")
        self._collection = collection
        self._wait = encode_choice(wire.WAITS, wait, "wait")
        self._batch = batch
        self._on_progress = on_progress or (lambda _: None)
        self._documents: dict[str, values_pb2.Document] = {}
        self._bytes = 0
        self._seen = 0
        self._sent = 0
        self._pending: dict[int, Message] = {}
        self._unsent: list[Message] = []
        self._window = 1
        self._failures = 0
        self.result = WriteResult(seq=0)

    @property
    def has_room(self) -> bool:
        """Whether one more request may be on its way."""
        return len(self._pending) - len(self._unsent) < self._window

    @property
    def pending(self) -> bool:
        """Whether anything is not acknowledged."""
        return bool(self._pending)

    def connect(self) -> None:
        """A new connection: all that is not acknowledged goes out again, in order, before anything new."""
        self._unsent = list(self._pending.values())
        self._window = 1

    def resend(self) -> Message | None:
        """The next request that an earlier connection did not bring to an end."""
        return self._unsent.pop(0) if self._unsent else None

    def add(self, document: Document) -> Message | None:
        """Take one document; the request that it completed, if any.

        Raises InvalidArgument naming the document by its place in the whole import.
        """
        encoded = wire.encode_document(document, f"documents[{self._seen}].")
        self._seen += 1
        size = encoded.ByteSize()
        full = len(self._documents) >= self._batch or self._bytes + size > BATCH_BYTES
        # A request holds no id twice; the later document has to win.
        completed = self._cut(last=False) if full or encoded.id in self._documents else None
        self._documents[encoded.id] = encoded
        self._bytes += size
        return completed

    def finish(self) -> Message | None:
        """The last request, if any is left."""
        return self._cut(last=True) if self._documents else None

    def requests(self, documents: Iterator[Document]) -> Iterator[Message]:
        """All requests of an import."""
        for document in documents:
            completed = self.add(document)
            if completed is not None:
                yield completed
        last = self.finish()
        if last is not None:
            yield last

    def receive(self, reply: Any) -> None:
        """Take one response: an acknowledgement counts, a plea to wait is heeded by the window."""
        if reply.WhichOneof("outcome") != "ack":
            return
        del self._pending[reply.index]
        ack, so_far = wire.decode_write_result(reply.ack), self.result
        self._failures, self._window = 0, WINDOW
        self.result = WriteResult(
            seq=max(so_far.seq, ack.seq),
            documents=so_far.documents + ack.documents,
            unchanged=so_far.unchanged + ack.unchanged,
            chunks=so_far.chunks + ack.chunks,
        )
        self._on_progress(self.result)

    def next_delay_s(self) -> float | None:
        """How long to wait before the next connection; ``None`` when it is time to give up."""
        self._failures += 1
        return None if self._failures >= ATTEMPTS else min(0.1 * 2**self._failures, 3.0)

    def _cut(self, *, last: bool) -> Message:
        # Followers apply in order: once the last request is indexed, all are. The earlier ones need not
        # wait for the index, each in its turn.
        wait = self._wait if last else values_pb2.WAIT_COMMITTED
        request = build(
            documents_pb2.ImportDocumentsRequest,
            "",
            collection=self._collection,
            documents=list(self._documents.values()),
            request_id=str(uuid4()),
            wait=wait,
            index=self._sent,
        )
        self._pending[self._sent] = request
        self._sent += 1
        self._documents, self._bytes = {}, 0
        return request
