"""``ragstone health``: the question that orchestrators ask."""

from __future__ import annotations

from typing import Annotated

import typer

from ragstone import Health
from ragstone.errors import BackendUnavailable
from retrieval.cli import output
from retrieval.cli.options import JsonOption, ServerOption, TimeoutOption, connect

_TIMEOUT_S = 5.0


def health(
    service: Annotated[
        str, typer.Argument(show_default="the whole server", help="A gRPC service, as ragstone.v1.Retrieval.")
    ] = "",
    timeout: TimeoutOption = _TIMEOUT_S,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Ask the server's health service (grpc.health.v1); exit with 0 only when it is serving.

    No token is needed.
    """
    with connect(server) as client:
        state = client.health(service, timeout=timeout)
    if as_json:
        output.print_json({"server": server, "service": service, "health": state.value})
    if state is not Health.SERVING:
        raise BackendUnavailable(f"{service or server} is {state.value}")
    if not as_json:
        output.stdout().print(f"{service or server} is {state.value}")
