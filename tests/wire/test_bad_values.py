"""What cannot go on the wire is refused by the field's name."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest

from ragstone import calls, wire, wire_versions
from ragstone.errors import InvalidArgument
from ragstone.fields import encode_floats
from ragstone.types import Document, Fusion, Query, Recipe
from ragstone.v1 import values_pb2

SURROGATE = "\ud800"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (Document(id=SURROGATE), "documents[0].id"),
        (Document(id="1", text=f"a{SURROGATE}"), "documents[0].text"),
        (Document(id="1", title=SURROGATE), "documents[0].title"),
        (Document(id="1", metadata={"lang": SURROGATE}), 'documents[0].metadata["lang"]'),
        (Document(id="1", metadata={"n": 2**63}), 'documents[0].metadata["n"]'),
        (Document(id="1", metadata={"n": object()}), 'documents[0].metadata["n"]'),  # type: ignore[dict-item]
        (Document(id="1", metadata={"n": [[1]]}), 'documents[0].metadata["n"]'),  # type: ignore[list-item]
        (Document(id="1", metadata={"n": b"x"}), 'documents[0].metadata["n"]'),
        (Document(id="1", metadata=[1]), "documents[0].metadata"),  # type: ignore[arg-type]
        (Document(id=7), "documents[0].id"),  # type: ignore[arg-type]
        (Document(id="1", vector=["a"]), "documents[0].vector.values"),
        (Document(id="1", vector=np.ones((2, 2), "f")), "documents[0].vector.values"),
        (Document(id="1", vector=b"1234"), "documents[0].vector.values"),
        (Document(id="1", text="é" * (wire.MAX_TEXT_BYTES // 2 + 1)), "documents[0].text"),
    ],
)
def test_a_document_that_protobuf_cannot_carry(document: Document, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        calls.upsert("docs", [document], None, "indexed")
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"text": SURROGATE}, "query.text"),
        ({"k": "5"}, "query.k"),
        ({"k": 2**31}, "query.k"),
        ({"mode": "fuzzy"}, "query.mode"),
        ({"fusion": Fusion(kind="best")}, "query.fusion.kind"),
        ({"fusion": Fusion(k=-(2**40))}, "query.fusion.k"),
        ({"space": SURROGATE}, "query.space"),
        ({"request_key": SURROGATE}, "query.request_key"),
        ({"version": SURROGATE}, "query.version"),
    ],
)
def test_a_query_that_protobuf_cannot_carry(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        wire.encode_query(Query(**fields))
    assert [violation.field for violation in caught.value.violations] == [field]


def test_a_recipe_s_section_with_a_value_that_is_no_option() -> None:
    with pytest.raises(InvalidArgument, match=r"recipe\.index"):
        wire_versions.encode_recipe(Recipe(index={"kind": object()}))


def test_all_wrong_documents_are_named_at_once() -> None:
    documents = [Document(id=SURROGATE), Document(id="fine"), Document(id="3", text=SURROGATE)]
    with pytest.raises(InvalidArgument) as caught:
        calls.upsert("docs", documents, None, "indexed")
    assert [v.field for v in caught.value.violations] == ["documents[0].id", "documents[2].text"]


def test_more_documents_than_a_request_takes_are_sent_to_the_import() -> None:
    with pytest.raises(InvalidArgument, match="import_documents"):
        calls.upsert("docs", [Document(id=str(i)) for i in range(1001)], None, "indexed")


def test_more_bytes_than_a_message_takes_are_sent_to_the_import() -> None:
    text = "x" * wire.MAX_TEXT_BYTES
    with pytest.raises(InvalidArgument, match="import_documents"):
        calls.upsert("docs", [Document(id=str(i), text=text) for i in range(5)], None, "indexed")


def test_one_text_is_not_a_list_of_ids() -> None:
    with pytest.raises(InvalidArgument, match="ids"):
        calls.delete("docs", "abc", None, None, "indexed")


@pytest.mark.parametrize(
    "vector",
    [
        [1.0, -2.5],
        (1, -2.5),
        array("f", [1, -2.5]),
        array("d", [1, -2.5]),
        np.array([1, -2.5], "f"),
        np.array([1, -2.5], "d"),
        np.array([1, -2.5], "e"),
        np.array([1, 0, -2.5, 0], "f")[::2],
        memoryview(array("f", [1, -2.5])),
    ],
)
def test_every_kind_of_row_becomes_the_same_little_endian_float32(vector: Any) -> None:
    assert encode_floats(vector, "vector") == bytes.fromhex("0000803f000020c0")


@pytest.mark.parametrize(
    "value",
    [
        values_pb2.Value(),
        values_pb2.Value(date_value="2024-13-01"),
        values_pb2.Value(list_value={"values": [{"list_value": {}}]}),
    ],
)
def test_metadata_that_is_no_value_is_refused_when_it_is_read(value: values_pb2.Value) -> None:
    message = values_pb2.Document(id="1", metadata={"key": value})
    with pytest.raises(InvalidArgument) as caught:
        wire.decode_document(message, "documents[0].")
    assert caught.value.violations[0].field == 'documents[0].metadata["key"]'
