"""Watching a rebuild: a bar on the terminal, for as long as the server tells how far it is."""

from __future__ import annotations

from typing import Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from ragstone import Client
from ragstone.errors import FailedPrecondition
from ragstone.types import Version
from retrieval.cli import output
from retrieval.cli.options import shows_progress


def follow(client: Client, version: Version) -> Version:
    """Watch until the version is ready, serving, failed or deleted; returns what it is then.

    Ctrl-C stops the watching alone, says so, and exits with code 130.
    """
    last = version
    with _bar() as bar:
        task = bar.add_task("", pace="")
        try:
            bar.update(task, **look(last))
            for last in client.watch_version(version.collection, version.name):
                bar.update(task, **look(last))
        except KeyboardInterrupt:
            bar.stop()
            typer.echo(f"ragstone: {_left_alone(last)}", err=True)
            raise typer.Exit(130) from None
    return last


def expect_success(version: Version) -> None:
    """Raises FailedPrecondition with the reason unless a rebuild ended well."""
    if version.state not in ("ready", "serving"):
        why = f": {version.reason}" if version.reason else ""
        raise FailedPrecondition(f"version {version.name} of {version.collection} is {version.state}{why}")


def look(version: Version) -> dict[str, Any]:
    """What the bar shows of a version."""
    state = version.state.replace("_", " ")
    progress = version.progress
    if progress is None:
        return {"description": f"{version.name} {state}", "total": None, "pace": version.reason}
    pace = [f"{progress.chunks_done:,} of {progress.chunks_total:,} chunks"]
    if progress.chunks_per_s > 0:
        pace.append(f"{progress.chunks_per_s:,.0f} a second")
    if progress.seconds_left is not None:
        pace.append(f"{output.duration(progress.seconds_left)} left")
    if progress.lag:
        pace.append(f"{progress.lag:,} behind")
    return {
        "description": f"{version.name} {state}",
        "total": max(progress.chunks_total, 1),
        "completed": progress.chunks_done,
        "pace": ", ".join([*pace, version.reason] if version.reason else pace),
    }


def _bar() -> Progress:
    # What the server says is text and no markup.
    said = (TextColumn("{task.description}", markup=False), TextColumn("{task.fields[pace]}", markup=False))
    columns = (SpinnerColumn(), said[0], BarColumn(), TaskProgressColumn(), said[1])
    return Progress(*columns, console=output.stderr(), transient=True, disable=not shows_progress())


def _left_alone(version: Version) -> str:
    goes_on = "stays paused" if version.state == "paused" else "goes on"
    place = f"{version.collection} {version.name}"
    return (
        f"no longer watching; the rebuild {goes_on}. `ragstone versions watch {place}` watches it again, "
        f"`ragstone versions promote {place}` lets it serve once it is ready"
    )
