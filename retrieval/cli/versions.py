"""``ragstone versions``: look at the index versions of a collection, and say which one serves."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.filesize import decimal
from rich.table import Table

from ragstone.types import QuerySource, Version
from retrieval.cli import output, output_versions
from retrieval.cli.golden import QueriesOption, read
from retrieval.cli.options import CollectionArgument, JsonOption, ServerOption, connect
from retrieval.cli.watching import expect_success, follow

CALL_S: Final = 600.0
"""Loading another model, checking gates and deleting large files take their time."""

app = typer.Typer(no_args_is_help=True, help="Look at the versions of a collection, and say which serves.")

NameArgument = Annotated[
    str, typer.Argument(metavar="VERSION", show_default=False, help="The version's name.")
]


def _share(text: str) -> float:
    """A share from ``5%`` or ``0.05``."""
    number, percent, rest = text.strip().partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = -1.0
    if rest or not 0 <= share <= 1:
        raise typer.BadParameter(f"{text!r} is no share: give a percentage such as 5%, or a number 0 to 1")
    return share


def _limit(text: str) -> tuple[str, float]:
    """The name and the limit of one ``--gate``."""
    name, _, limit = text.partition("=")
    try:
        return name.strip(), float(limit)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not NAME=LIMIT, e.g. overlap=0.5", param_hint="--gate"
        ) from None


@app.command("list")
def list_(collection: CollectionArgument, server: ServerOption = "", as_json: JsonOption = False) -> None:
    """List the versions of a collection."""
    with connect(server) as client:
        found = list(client.versions(collection))
    if as_json:
        output.print_json({"versions": [output_versions.version_json(v) for v in found]})
        return
    table = Table("name", "state", "space", "dim", "applied seq", "created")
    for v in found:
        created = f"{v.created_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(v.name, output_versions.state(v), v.space, str(v.dim), str(v.applied_seq), created)
    output.stdout().print(table)


@app.command()
def show(
    collection: CollectionArgument, name: NameArgument, server: ServerOption = "", as_json: JsonOption = False
) -> None:
    """Show one version with its recipe, its progress, and what was checked before promotion."""
    with connect(server) as client:
        version = client.get_version(collection, name)
    if as_json:
        output.print_json(output_versions.version_json(version))
        return
    output.stdout().print(output_versions.version_facts(version))
    if version.gates:
        output.stdout().print(output_versions.gates_table(version.gates))
    if version.adapter:
        typer.echo(output_versions.adapter_line(version.adapter))
    if version.traffic:
        output.stdout().print(output_versions.traffic_table(version.traffic))
        for note in output_versions.traffic_notes(version.traffic):
            typer.echo(note)
    if version.parked:
        output.stdout().print(output_versions.parked_table(version.parked))
    if version.history:
        output.stdout().print(output_versions.history_table(version.history))


@app.command()
def watch(
    collection: CollectionArgument, name: NameArgument, server: ServerOption = "", as_json: JsonOption = False
) -> None:
    """Wait until a version is ready, and show how far it is."""
    with connect(server) as client:
        version = follow(client, client.get_version(collection, name))
    _report(version, f"{name} is {version.state}", as_json=as_json)
    expect_success(version)


@app.command()
def promote(
    collection: CollectionArgument,
    name: NameArgument,
    force: Annotated[bool, typer.Option("--force", help="Even if gates did not pass.")] = False,
    gates: Annotated[
        list[str] | None,
        typer.Option(
            "--gate",
            metavar="NAME=LIMIT",
            help="Measure anew with this limit: recall, ndcg_loss, overlap, p95_ratio. Repeatable.",
        ),
    ] = None,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Let a ready version serve. The one that served before is kept for a rollback."""
    with connect(server) as client:
        limits = dict(map(_limit, gates or ()))
        version = client.promote(collection, name, force=force, gates=limits, timeout=CALL_S)
    _report(version, f"{name} serves {collection}", as_json=as_json)


@app.command()
def compare(
    collection: CollectionArgument,
    a: Annotated[str, typer.Argument(metavar="A", show_default=False, help="A version's name.")],
    b: Annotated[str, typer.Argument(metavar="B", show_default=False, help="Another's.")],
    queries: QueriesOption = None,
    live: Annotated[
        bool, typer.Option("--live", help="What clients asked since the server started.")
    ] = False,
    golden: Annotated[bool, typer.Option("--golden", help="The collection's golden queries.")] = False,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Ask two versions the same queries, and show how their answers differ.

    Without --queries, --live or --golden it takes the first that there is: live, golden, texts of chunks.
    """
    if (queries is not None) + live + golden > 1:
        raise typer.BadParameter("give one of --queries, --live and --golden")
    source = QuerySource.RECORDED if live else QuerySource.GOLDEN if golden else None
    asked = read(queries) if queries else ()
    with connect(server) as client:
        found = client.compare_versions(collection, a, b, queries=asked, source=source, timeout=CALL_S)
    if as_json:
        output.print_json(output_versions.comparison_json(found))
        return
    output.stdout().print(output_versions.comparison_table(found))
    for line in output_versions.comparison_lines(found):
        typer.echo(line)


@app.command()
def rollback(collection: CollectionArgument, server: ServerOption = "", as_json: JsonOption = False) -> None:
    """Let the version serve that served before."""
    with connect(server) as client:
        version = client.rollback(collection, timeout=CALL_S)
    _report(version, f"{version.name} serves {collection} again", as_json=as_json)


@app.command()
def pause(
    collection: CollectionArgument, name: NameArgument, server: ServerOption = "", as_json: JsonOption = False
) -> None:
    """Stop the work on a version until it is resumed; what is done stays."""
    with connect(server) as client:
        version = client.pause_version(collection, name)
    _report(version, f"{name} is {version.state}", as_json=as_json)


@app.command()
def resume(
    collection: CollectionArgument, name: NameArgument, server: ServerOption = "", as_json: JsonOption = False
) -> None:
    """Go on with a version that is paused."""
    with connect(server) as client:
        version = client.resume_version(collection, name)
    _report(version, f"{name} is {version.state}", as_json=as_json)


@app.command()
def traffic(
    collection: CollectionArgument,
    name: NameArgument,
    canary: Annotated[
        float | None,
        typer.Option(
            "--canary", metavar="SHARE", parser=_share, help="Let it answer this share: 5% or 0.05."
        ),
    ] = None,
    shadow: Annotated[
        float | None,
        typer.Option(
            "--shadow", metavar="SHARE", parser=_share, help="Ask it beside on this share, and compare."
        ),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Take both shares away.")] = False,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Try a version that is ready on a share of the live searches. `versions show` tells what is seen."""
    if off and (canary, shadow) != (None, None):
        raise typer.BadParameter("--off takes both shares away; give it alone")
    if off:
        canary = shadow = 0.0
    if canary is None and shadow is None:
        raise typer.BadParameter("give a share with --canary or --shadow, or --off")
    with connect(server) as client:
        version = client.set_traffic(collection, name, shadow=shadow, canary=canary)
    _report(version, f"{name} gets {output_versions.shares(version)}", as_json=as_json)


@app.command()
def delete(
    collection: CollectionArgument,
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Delete a version that does not serve, with its files; stops a rebuild that is under way."""
    if not yes:
        typer.confirm(f"Delete version {name} of {collection}?", abort=True, err=True)
    with connect(server) as client:
        freed = client.delete_version(collection, name, timeout=CALL_S)
    if as_json:
        output.print_json({"deleted": name, "bytes_freed": freed})
    else:
        typer.echo(f"deleted {name}, {decimal(freed)} freed")


def _report(version: Version, line: str, *, as_json: bool) -> None:
    output.print_json(output_versions.version_json(version)) if as_json else typer.echo(line)
