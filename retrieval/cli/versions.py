"""``ragstone versions``: list and show the index versions of a collection."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from retrieval.cli import output
from retrieval.cli.options import CollectionArgument, JsonOption, ServerOption, connect

app = typer.Typer(no_args_is_help=True, help="Look at the index versions of a collection.")


@app.command("list")
def list_(collection: CollectionArgument, server: ServerOption = "", as_json: JsonOption = False) -> None:
    """List the versions of a collection."""
    with connect(server) as client:
        found = list(client.versions(collection))
    if as_json:
        output.print_json({"versions": [output.version_json(v) for v in found]})
        return
    table = Table("name", "state", "space", "dim", "applied seq", "created")
    for v in found:
        created = f"{v.created_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(v.name, v.state, v.space, str(v.dim), str(v.applied_seq), created)
    output.stdout().print(table)


@app.command()
def show(
    collection: CollectionArgument,
    name: Annotated[str, typer.Argument(metavar="VERSION", show_default=False, help="The version's name.")],
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show one version with its recipe."""
    with connect(server) as client:
        value = output.version_json(client.get_version(collection, name))
    output.print_json(value) if as_json else output.stdout().print(output.facts(value))
