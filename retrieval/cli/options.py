"""What the commands share: the options, the way to a server, and recipes from files."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ragstone import Client, Recipe

DEFAULT_SERVER: Final = "127.0.0.1:50051"
SECTIONS: Final = tuple(field.name for field in fields(Recipe))
"""The tables of a recipe."""


def _server_of_root(ctx: typer.Context, value: str) -> str:
    """The command's own ``--server``, else the one given before the command's name."""
    return value or str(ctx.find_root().params["server"])


ServerOption = Annotated[
    str,
    typer.Option(
        "--server",
        metavar="HOST:PORT",
        callback=_server_of_root,
        show_default=f"$RAGSTONE_SERVER or {DEFAULT_SERVER}",
        help="The server to talk to.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
CollectionArgument = Annotated[
    str, typer.Argument(metavar="COLLECTION", show_default=False, help="The collection's name.")
]
FilterOption = Annotated[
    str,
    typer.Option(
        "--filter",
        metavar="EXPR",
        show_default=False,
        help="Only documents whose metadata match, e.g. 'lang = \"en\" AND year >= 2020'.",
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", metavar="SECONDS", min=0.001, show_default=False, help="Deadline of a call."),
]
DatasetOption = Annotated[
    Path,
    typer.Option(
        "--dataset",
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="A test collection in the BEIR layout.",
    ),
]
RecipeOption = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="A TOML file with tables: embedder, chunker, index, lexical, tokens, fusion, reranker, gates.",
    ),
]


def connect(server: str) -> Client:
    """A client of ``server``; a context manager."""
    return Client(server)


def read_recipe(path: Path) -> Recipe:
    """The recipe that a TOML file describes.

    Raises ``typer.BadParameter`` (a usage error) where the file is no TOML or names unknown sections.
    """
    try:
        sections: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise typer.BadParameter(f"{path}: {exc}", param_hint="--recipe") from exc
    for name, section in sections.items():
        if name not in SECTIONS or not isinstance(section, dict):
            raise typer.BadParameter(
                f"{path}: {name!r} is no section of a recipe; the sections are {', '.join(SECTIONS)}",
                param_hint="--recipe",
            )
    return Recipe(**sections)


def make_recipe(path: Path | None, *, index: Mapping[str, Any] | None = None) -> Recipe | None:
    """The recipe of ``--recipe`` and ``--index`` together; ``None`` where neither was given."""
    if path is None and index is None:
        return None
    recipe = read_recipe(path) if path else Recipe()
    if index:
        recipe = replace(recipe, index={**recipe.index, **index})
    return recipe


def shows_progress() -> bool:
    """Whether somebody watches: progress is for terminals, and only ever on stderr."""
    return sys.stderr.isatty()
