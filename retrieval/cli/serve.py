"""``ragstone serve``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from retrieval.config import configure_threads, load_settings


def serve(
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", show_default="data", help="Where everything is kept."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", show_default="127.0.0.1:50051", help="The address; port 0 is a free one."
        ),
    ] = None,
    metrics_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            show_default="none",
            help="Where to serve Prometheus metrics over HTTP.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="Settings as TOML; options win over it."
        ),
    ] = None,
) -> None:
    """Run the server until it is told to stop (SIGTERM, SIGINT).

    Prints the bound address on stdout once it listens; logs go to stderr.
    """
    settings = load_settings(config, data_dir=data_dir, listen=listen, metrics_listen=metrics_listen)
    # Before the parts are imported: NumPy, torch and FAISS read their thread settings only then.
    configure_threads()
    from retrieval.wiring import run_server

    asyncio.run(run_server(settings, on_listening=_announce))


def _announce(address: str) -> None:
    typer.echo(f"ragstone: serving on {address}")
