"""The generated code: what it is named, what it needs, and that it is current."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from ragstone.v1 import collections_pb2, documents_pb2, retrieval_pb2, values_pb2, versions_pb2

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    file.DESCRIPTOR for file in (values_pb2, retrieval_pb2, collections_pb2, documents_pb2, versions_pb2)
]


def test_every_descriptor_is_registered_under_ragstone() -> None:
    assert all(file.name.startswith("ragstone/v1/") for file in FILES)
    assert all(file.package == "ragstone.v1" for file in FILES)


def test_generated_code_needs_nothing_but_protobuf() -> None:
    for file in FILES:
        proto = FileDescriptorProto()
        file.CopyToProto(proto)
        assert all(name.startswith(("ragstone/", "google/protobuf/")) for name in proto.dependency)


def test_every_enum_begins_unspecified() -> None:
    enums = [enum for file in FILES for enum in file.enum_types_by_name.values()]
    assert enums
    assert all(enum.values_by_number[0].name.endswith("_UNSPECIFIED") for enum in enums)


def test_every_method_has_messages_of_its_own() -> None:
    methods = [m for file in FILES for service in file.services_by_name.values() for m in service.methods]
    assert all(m.input_type.name == f"{m.name}Request" for m in methods)
    assert all(m.output_type.name == f"{m.name}Response" for m in methods)


def test_stubs_are_what_the_protos_generate() -> None:
    tool = ROOT / "tools" / "generate_stubs.py"
    done = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_client_ships_types() -> None:
    assert resources.files("ragstone").joinpath("py.typed").is_file()
    assert resources.files("ragstone.v1").joinpath("retrieval_pb2.pyi").is_file()
