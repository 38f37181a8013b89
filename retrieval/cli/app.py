"""The command ``ragstone``: its commands, and how an error leaves it."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from ragstone.errors import RagstoneError
from retrieval.cli import (
    capacity,
    collections,
    demo,
    documents,
    evaluate,
    health,
    ingest,
    output,
    rebuild,
    reembed,
    search,
    serve,
    tune,
    usage,
    versions,
)
from retrieval.cli.options import DEFAULT_SERVER, JsonOption, ServerOption, connect


class Guarded(TyperGroup):
    """Turns the errors of Ragstone and of the operating system into one line and exit code 1."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Run the command."""
        try:
            return super().invoke(ctx)
        except RagstoneError as error:
            typer.echo(f"ragstone: {output.error_line(error)}", err=True)
            raise typer.Exit(1) from error
        except BrokenPipeError:
            raise  # whoever read our output has seen enough: no error to tell
        except OSError as error:
            typer.echo(f"ragstone: {error}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    name="ragstone",
    cls=Guarded,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Index documents, search them, and get answers that cite them.",
)


@app.callback()
def root(
    server: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", envvar="RAGSTONE_SERVER", help="The server to talk to."),
    ] = DEFAULT_SERVER,
) -> None:
    """Index documents, search them, and get answers that cite them."""


@app.command()
def info(server: ServerOption = "", as_json: JsonOption = False) -> None:
    """Show what the server is, what it accepts, and whether it is healthy."""
    with connect(server) as client:
        about, health = client.info(), client.health()
    value = {
        "server": server,
        "health": health.value,
        "version": about.version,
        "max_message_bytes": about.max_message_bytes,
        "max_k": about.max_k,
        "max_batch": about.max_batch,
        "embedder": dict(about.embedder),
    }
    output.print_json(value) if as_json else output.stdout().print(output.facts(value))


app.command("serve")(serve.serve)
app.command("health")(health.health)
app.add_typer(collections.app, name="collections")
app.add_typer(documents.app, name="documents")
app.add_typer(versions.app, name="versions")
app.command("ingest")(ingest.ingest)
app.command("rebuild")(rebuild.rebuild)
app.command("reembed")(reembed.reembed)
app.command("search")(search.search)
app.command("ask")(search.ask)
app.command("usage")(usage.usage)
app.command("eval")(evaluate.evaluate)
app.command("tune")(tune.tune)
app.command("capacity")(capacity.capacity)
app.command("demo")(demo.demo)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
