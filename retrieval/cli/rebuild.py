"""``ragstone rebuild``: new indexes for a collection, beside those that serve."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ragstone import Recipe
from ragstone.types import RebuildPlan, Version
from retrieval.cli import output, output_versions
from retrieval.cli.index_option import IndexOption, index_section
from retrieval.cli.options import (
    SECTIONS,
    CollectionArgument,
    JsonOption,
    RecipeOption,
    ServerOption,
    connect,
    read_recipe,
)
from retrieval.cli.versions import CALL_S
from retrieval.cli.watching import expect_success, follow


def rebuild(
    collection: CollectionArgument,
    recipe: RecipeOption = None,
    index: IndexOption = None,
    shards: Annotated[
        int | None, typer.Option("--shards", metavar="N", help="Parts of the dense index.")
    ] = None,
    embedder: Annotated[
        str | None, typer.Option("--embedder", metavar="KIND", help="The kind of the embedder.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="ID", help="The embedder's model: a hub id or a path.")
    ] = None,
    chunk_tokens: Annotated[
        int | None, typer.Option("--chunk-tokens", metavar="N", help="The longest chunk, in tokens.")
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Any option of the recipe; the value as in TOML, text also without quotes. Repeatable.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    paused: Annotated[
        bool, typer.Option("--paused", help="Begin without building: `ragstone reembed` can go first.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Wait until it is ready.")] = False,
    promote: Annotated[bool, typer.Option("--promote", help="Wait, then let it serve.")] = False,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Build a new version of the indexes: another model, other chunks, another index.

    What is not said stays as the serving version has it. That one goes on serving until another is promoted.
    """
    dense = index_section(index) if index else {}
    short = {
        **{f"index.{key}": value for key, value in dense.items()},
        "index.shards": shards,
        "embedder.kind": embedder,
        "embedder.model": model,
        "chunker.max_tokens": chunk_tokens,
    }
    given = {name: value for name, value in short.items() if value is not None}
    changes = overlay(recipe, {**given, **dict(map(_option, options or ()))})
    if dry_run and (watch or promote):
        raise typer.BadParameter("--dry-run builds nothing to watch or to promote")
    if paused and (watch or promote):
        raise typer.BadParameter("--paused builds nothing to watch or to promote")
    with connect(server) as client:
        if dry_run:
            _show_plan(client.plan_version(collection, changes, timeout=CALL_S), as_json=as_json)
            return
        version = client.create_version(collection, changes, paused=paused, timeout=CALL_S)
        if watch or promote:
            version = follow(client, version)
        if promote and version.state == "ready":
            version = client.promote(collection, version.name, timeout=CALL_S)
    _show(version, as_json=as_json)
    if watch or promote:
        expect_success(version)


def overlay(path: Path | None, options: Mapping[str, Any]) -> Recipe:
    """What a rebuild changes: the recipe of a file under ``options``, by ``section.key``.

    Raises ``typer.BadParameter`` where there is nothing.
    """
    file = read_recipe(path) if path else Recipe()
    sections: dict[str, dict[str, Any]] = {name: dict(getattr(file, name)) for name in SECTIONS}
    for name, value in options.items():
        section, _, key = name.partition(".")
        sections[section][key] = value
    if not any(sections.values()):
        raise typer.BadParameter("say what is to change, e.g. with --model, --index, --set or --recipe")
    return Recipe(**sections)


def _option(text: str) -> tuple[str, Any]:
    """``section.key`` and the value of one ``--set``."""
    name, equals, value = text.partition("=")
    section, _, key = name.strip().partition(".")
    if not (equals and key) or section not in SECTIONS:
        raise typer.BadParameter(
            f"{text!r} is not SECTION.KEY=VALUE; the sections are {', '.join(SECTIONS)}", param_hint="--set"
        )
    return f"{section}.{key}", _value(value.strip())


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _show_plan(plan: RebuildPlan, *, as_json: bool) -> None:
    output.print_json(output_versions.plan_json(plan)) if as_json else output.stdout().print(
        output_versions.plan_table(plan)
    )


def _show(version: Version, *, as_json: bool) -> None:
    if as_json:
        output.print_json(output_versions.version_json(version))
        return
    typer.echo(f"version {version.name} of {version.collection} is {version.state}")
    if version.gates:
        output.stdout().print(output_versions.gates_table(version.gates))
    if version.state in _NEXT:
        force = " --force" if not all(gate.passed for gate in version.gates) else ""
        typer.echo(_NEXT[version.state].format(version.collection, version.name, force))


_NEXT: Final = {
    "ready": "`ragstone versions promote {0} {1}{2}` lets it serve",
    "paused": "`ragstone reembed {0} {1}` embeds its texts, `ragstone versions resume {0} {1}` builds it",
    "building": "`ragstone versions watch {0} {1}` shows how far it is",
}
