"""``ragstone documents``: get, list and delete."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from retrieval.cli import output
from retrieval.cli.options import CollectionArgument, FilterOption, JsonOption, ServerOption, connect

app = typer.Typer(no_args_is_help=True, help="Look at and delete documents.")


@app.command()
def get(
    collection: CollectionArgument,
    document_id: Annotated[str, typer.Argument(metavar="ID", show_default=False, help="The document's id.")],
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Print one document."""
    with connect(server) as client:
        value = output.document_json(client.get_document(collection, document_id))
    if as_json:
        output.print_json(value)
        return
    text = value.pop("text")
    output.stdout().print(output.facts(value))
    typer.echo(f"\n{text}")


@app.command("list")
def list_(
    collection: CollectionArgument,
    limit: Annotated[int, typer.Option(min=1, help="How many to list at most.")] = 100,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """List documents in the order of their ids."""
    with connect(server) as client:
        found = list(islice(client.list_documents(collection), limit))
    if as_json:
        output.print_json({"documents": [output.document_json(d) for d in found]})
        return
    table = Table("id", "title", "text")
    for document in found:
        table.add_row(Text(document.id), Text(document.title), Text(output.snippet(document.text, 100)))
    output.stdout().print(table)


@app.command()
def delete(
    collection: CollectionArgument,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", show_default=False, help="The documents' ids.")
    ] = None,
    where: FilterOption = "",
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Delete documents by id, or all that a filter matches."""
    if bool(ids) == bool(where):
        raise typer.BadParameter("give document ids or --filter, one of the two")
    with connect(server) as client:
        result = client.delete(collection, ids=ids or None, filter=where or None)
    if as_json:
        output.print_json({"documents": result.documents, "seq": result.seq})
    else:
        typer.echo(f"deleted {result.documents:,} documents, seq {result.seq}")
