"""``ragstone collections``: create, list, show, delete, compact, and their golden queries."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.table import Table

from retrieval.cli import golden as golden_queries
from retrieval.cli import output, output_versions
from retrieval.cli.index_option import IndexOption, index_section
from retrieval.cli.options import JsonOption, RecipeOption, ServerOption, connect, make_recipe

_SHOWN: Final = 20
COMPACT_S: Final = 3600.0
"""Building a large graph afresh takes its time."""

app = typer.Typer(no_args_is_help=True, help="Create, look at and delete collections.")

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", show_default=False, help="The collection's name.")
]


@app.command()
def create(
    name: NameArgument,
    recipe: RecipeOption = None,
    index: IndexOption = None,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Create a collection."""
    wanted = make_recipe(recipe, index=index_section(index) if index else None)
    with connect(server) as client:
        collection = client.create_collection(name, recipe=wanted)
    if as_json:
        output.print_json(output_versions.collection_json(collection))
    else:
        typer.echo(f"created {collection.name}, version {collection.serving.name}")


@app.command("list")
def list_(server: ServerOption = "", as_json: JsonOption = False) -> None:
    """List the collections."""
    with connect(server) as client:
        found = list(client.list_collections())
    if as_json:
        output.print_json({"collections": [output_versions.collection_json(c) for c in found]})
        return
    table = Table("name", "documents", "chunks", "seq", "version", "state", "space")
    for c in found:
        counts = (f"{c.documents:,}", f"{c.chunks:,}", str(c.seq))
        table.add_row(c.name, *counts, c.serving.name, c.serving.state, c.serving.space)
    output.stdout().print(table)


@app.command()
def show(name: NameArgument, server: ServerOption = "", as_json: JsonOption = False) -> None:
    """Show one collection and the version that serves it."""
    with connect(server) as client:
        value = output_versions.collection_json(client.get_collection(name))
    output.print_json(value) if as_json else output.stdout().print(output.facts(value))


@app.command()
def delete(name: NameArgument, server: ServerOption = "", as_json: JsonOption = False) -> None:
    """Delete a collection with all of its documents."""
    with connect(server) as client:
        client.delete_collection(name)
    output.print_json({"deleted": name}) if as_json else typer.echo(f"deleted {name}")


@app.command()
def compact(name: NameArgument, server: ServerOption = "", as_json: JsonOption = False) -> None:
    """Build the collection's indexes afresh, without what was deleted or replaced."""
    with connect(server) as client:
        client.compact(name, timeout=COMPACT_S)
    output.print_json({"compacted": name}) if as_json else typer.echo(f"compacted {name}")


@app.command()
def golden(
    name: NameArgument,
    queries: golden_queries.QueriesOption = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all.")] = False,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Set or show the golden queries: what a new version has to answer well before it may serve."""
    if clear and queries:
        raise typer.BadParameter("--clear removes all golden queries; give it alone")
    with connect(server) as client:
        if queries or clear:
            client.set_golden_queries(name, golden_queries.read(queries) if queries else [])
        found = client.get_golden_queries(name)
    if as_json:
        output.print_json({"queries": [asdict(query) for query in found]})
        return
    for query in found[:_SHOWN]:
        typer.echo(f"{query.id}  {output.snippet(query.text, 80)}  ({len(query.relevant)} relevant)")
    typer.echo(f"{name} has {len(found):,} golden queries")
