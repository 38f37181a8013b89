"""The service Documents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.duration_pb2 import Duration

from ragstone import wire
from ragstone.errors import FieldViolation, InvalidArgument, Overloaded, RagstoneError
from ragstone.fields import refusing
from ragstone.types import Document
from ragstone.v1 import documents_pb2 as pb
from ragstone.v1 import values_pb2
from retrieval.api.application import Application
from retrieval.api.interceptors import Caller, Edge
from retrieval.api.requests import float_row

DEFAULT_PAGE = 100


class DocumentsServicer:
    """Decode, call, encode."""

    def __init__(self, app: Application) -> None:
        self._app = app

    def handlers(self, edge: Edge) -> dict[str, Any]:
        """Method name -> gRPC handler."""
        return {
            "UpsertDocuments": edge.unary(pb.UpsertDocumentsRequest, self.upsert),
            "ImportDocuments": edge.conversation(pb.ImportDocumentsRequest, self.import_some, _back_off),
            "GetDocument": edge.unary(pb.GetDocumentRequest, self.get),
            "ListDocuments": edge.unary(pb.ListDocumentsRequest, self.list_page),
            "DeleteDocuments": edge.unary(pb.DeleteDocumentsRequest, self.delete),
        }

    async def upsert(self, request: pb.UpsertDocumentsRequest, caller: Caller) -> pb.UpsertDocumentsResponse:
        """UpsertDocuments."""
        return pb.UpsertDocumentsResponse(result=await self._upsert(request, caller))

    async def import_some(
        self, request: pb.ImportDocumentsRequest, caller: Caller
    ) -> pb.ImportDocumentsResponse:
        """One request of ImportDocuments. Errors carry its index."""
        try:
            ack = await self._upsert(request, caller)
        except RagstoneError as exc:
            exc.metadata["index"] = str(request.index)
            raise
        return pb.ImportDocumentsResponse(index=request.index, ack=ack)

    async def get(self, request: pb.GetDocumentRequest, caller: Caller) -> pb.GetDocumentResponse:
        """GetDocument."""
        document = await self._app.get_document(request.collection, request.id)
        return pb.GetDocumentResponse(document=wire.encode_document(document))

    async def list_page(self, request: pb.ListDocumentsRequest, caller: Caller) -> pb.ListDocumentsResponse:
        """ListDocuments."""
        documents, token = await self._app.list_documents(
            request.collection, page_size=request.page_size or DEFAULT_PAGE, page_token=request.page_token
        )
        encoded = [wire.encode_document(document) for document in documents]
        return pb.ListDocumentsResponse(documents=encoded, next_page_token=token)

    async def delete(self, request: pb.DeleteDocumentsRequest, caller: Caller) -> pb.DeleteDocumentsResponse:
        """DeleteDocuments."""
        result = await self._app.delete(
            request.collection,
            ids=list(request.ids),
            filter=request.filter,
            request_id=request.request_id,
            wait=wire.decode_wait(request.wait),
            tenant=caller.tenant,
        )
        return pb.DeleteDocumentsResponse(result=wire.encode_write_result(result))

    async def _upsert(
        self, request: pb.UpsertDocumentsRequest | pb.ImportDocumentsRequest, caller: Caller
    ) -> values_pb2.WriteResult:
        result = await self._app.upsert(
            request.collection,
            decode_documents(request.documents),
            request_id=request.request_id,
            wait=wire.decode_wait(request.wait),
            tenant=caller.tenant,
        )
        return wire.encode_write_result(result)


def decode_documents(messages: Iterable[values_pb2.Document]) -> list[Document]:
    """The documents of a write, with float32 rows as vectors.

    Raises InvalidArgument naming all fields that the protos' rules cannot judge: an id given twice, a
    document without text and vector, a vector with a component that is not finite, nested lists.
    """
    documents: list[Document] = []
    violations: list[FieldViolation] = []
    places: dict[str, int] = {}
    for i, message in enumerate(messages):
        at = f"documents[{i}]"
        first = places.setdefault(message.id, i)
        if first != i:
            violations.append(FieldViolation(f"{at}.id", f"the same id as documents[{first}]"))
        if not message.HasField("vector") and (not message.text or message.text.isspace()):
            violations.append(FieldViolation(f"{at}.text", "empty, and there is no vector"))
        try:
            documents.append(wire.decode_document(message, f"{at}.", vector=float_row))
        except InvalidArgument as exc:
            violations += exc.violations or (FieldViolation(f"{at}.vector", exc.message),)
    if violations:
        raise refusing(violations)
    return documents


def _back_off(request: pb.ImportDocumentsRequest, error: Overloaded) -> pb.ImportDocumentsResponse:
    delay = Duration()
    delay.FromNanoseconds(round((error.retry_after_s or 0.5) * 1e9))
    return pb.ImportDocumentsResponse(index=request.index, back_off=pb.BackOff(retry_after=delay))
