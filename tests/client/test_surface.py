"""The two clients have one surface, of public values only."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
import typing
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import ragstone
from ragstone import AsyncClient, Client, errors

METHODS = [
    name for name, member in vars(Client).items() if not name.startswith("_") and inspect.isfunction(member)
]


def parameters(method: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(method).parameters.values()
    return [(parameter.name, parameter.kind, parameter.default) for parameter in found]


def test_the_names_that_the_documentation_promises() -> None:
    assert set(METHODS) == {
        "create_collection",
        "get_collection",
        "list_collections",
        "delete_collection",
        "compact",
        "versions",
        "get_version",
        "set_golden_queries",
        "get_golden_queries",
        "compare_versions",
        "create_version",
        "plan_version",
        "watch_version",
        "promote",
        "rollback",
        "pause_version",
        "resume_version",
        "delete_version",
        "set_traffic",
        "list_missing_embeddings",
        "put_embeddings",
        "upsert",
        "import_documents",
        "get_document",
        "list_documents",
        "delete",
        "search",
        "search_pages",
        "batch_search",
        "answer",
        "usage",
        "embed",
        "rerank",
        "info",
        "health",
        "close",
    }


@pytest.mark.parametrize("name", [*METHODS, "__init__"])
def test_both_clients_take_the_same_arguments(name: str) -> None:
    assert parameters(getattr(Client, name)) == parameters(getattr(AsyncClient, name))


@pytest.mark.parametrize("name", METHODS)
def test_both_clients_say_the_same_of_a_method(name: str) -> None:
    assert inspect.getdoc(getattr(Client, name)) == inspect.getdoc(getattr(AsyncClient, name))


@pytest.mark.parametrize("name", METHODS)
def test_what_one_iterates_over_so_does_the_other(name: str) -> None:
    blocking = typing.get_type_hints(getattr(Client, name))["return"]
    asynchronous = typing.get_type_hints(getattr(AsyncClient, name))["return"]
    if typing.get_origin(blocking) is Iterator:
        assert typing.get_origin(asynchronous) is AsyncIterator
        assert typing.get_args(blocking) == typing.get_args(asynchronous)
    else:
        assert blocking == asynchronous


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("name", METHODS)
def test_no_protobuf_type_is_public(client: type, name: str) -> None:
    hints = typing.get_type_hints(getattr(client, name))
    assert not any("_pb2" in repr(hint) or "google" in repr(hint) for hint in hints.values())


def test_every_public_name_is_there() -> None:
    assert all(hasattr(ragstone, name) for name in ragstone.__all__)


def test_the_client_needs_only_what_it_declares() -> None:
    script = """
        import sys
        allowed = {"grpc", "google", "ragstone", "typing_extensions"}

        class OnlyDeclared:
            def find_spec(self, name, path=None, target=None):
                top = name.partition(".")[0]
                if top in allowed or top in sys.stdlib_module_names:
                    return None
                raise ImportError(f"{name} is not declared")

        sys.meta_path.insert(0, OnlyDeclared())
        import ragstone
        with ragstone.Client("127.0.0.1:1", timeout=10.0) as client:
            try:
                client.search("docs", vector=[1.0, 2.0])
            except ragstone.errors.BackendUnavailable:
                pass
        forbidden = ("numpy", "grpc_status", "grpc_health", "protovalidate", "retrieval")
        found = [name for name in forbidden if name in sys.modules]
        assert not found, found
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_server_that_is_not_there_is_named_with_what_starts_one() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(errors.BackendUnavailable) as caught:
        client.info()
    assert "127.0.0.1:1" in caught.value.message
    assert "ragstone serve" in caught.value.message


def test_a_closed_client_says_so() -> None:
    client = Client("127.0.0.1:1")
    client.close()
    with pytest.raises(errors.FailedPrecondition, match="closed"):
        client.info()


async def test_a_closed_asynchronous_client_says_so() -> None:
    client = AsyncClient("127.0.0.1:1")
    await client.close()
    with pytest.raises(errors.FailedPrecondition, match="closed"):
        await client.info()


@pytest.mark.parametrize("arguments", [{"address": ""}, {"timeout": 0}, {"timeout": -1.0}])
def test_wrong_arguments_of_a_client_are_named(arguments: dict[str, Any]) -> None:
    [field] = arguments
    with pytest.raises(errors.InvalidArgument) as caught:
        Client(**arguments)
    assert caught.value.violations[0].field == field
