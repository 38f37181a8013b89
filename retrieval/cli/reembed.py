"""``ragstone reembed``: make the vectors that a version lacks, on this machine or any other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from ragstone.errors import FailedPrecondition, NotFound
from ragstone.types import ParkedText, Version
from retrieval.cli import output, output_versions
from retrieval.cli.options import CollectionArgument, JsonOption, ServerOption, connect, shows_progress
from retrieval.jobs.borrowing import Tally, WorkerLimits
from retrieval.jobs.crew import Assignment, Crew

DEFAULTS: Final = WorkerLimits()
Job: TypeAlias = Callable[[Callable[[Tally], None]], Tally]
"""Does the work, and reports on its way to what it is given."""
UNFINISHED: Final = ("building", "catching_up", "paused", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a job ended."""

    version: Version
    texts: int
    """That this command has embedded."""
    seconds: float
    """With the start of the workers and of their models."""
    missing: int
    """Texts that still lack a vector: parked ones."""

    @property
    def parked(self) -> Sequence[ParkedText]:
        """Texts that could not be embedded, by this command or by others."""
        return self.version.parked

    def json(self) -> dict[str, Any]:
        """With fixed keys."""
        return {
            "collection": self.version.collection,
            "version": self.version.name,
            "space": self.version.space,
            "texts": self.texts,
            "seconds": round(self.seconds, 3),
            "texts_per_s": round(self.texts / max(self.seconds, 1e-9), 1),
            "missing": self.missing,
            "parked": [{"chunk_id": text.chunk_id, "reason": text.reason} for text in self.parked],
        }


def reembed(
    collection: CollectionArgument,
    version: Annotated[
        str | None,
        typer.Argument(metavar="[VERSION]", show_default="the one that is unfinished", help="The version."),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="SPACE", help="The version in this embedding space.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, metavar="N", help="Processes that embed.")] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Work as actors of the Ray cluster there; `local` starts a Ray here."
        ),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="X",
            show_default="1 where the cluster has any",
            help="GPUs for each worker, with --ray; may be a fraction.",
        ),
    ] = None,
    range_texts: Annotated[
        int, typer.Option(min=1, max=65_536, metavar="N", help="Texts that a worker borrows at a time.")
    ] = DEFAULTS.range_texts,
    lease_s: Annotated[
        float,
        typer.Option(
            "--lease", min=0.1, max=86_400, metavar="SECONDS", help="How long a dead worker's texts wait."
        ),
    ] = DEFAULTS.lease_s,
    server: ServerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Embed the texts that a paused version lacks vectors of; its rebuild then finds them ready.

    Can be run on several machines at once, stopped, and run again: each distinct text is embedded once.
    """
    if gpus_per_worker is not None and ray is None:
        raise typer.BadParameter("goes with --ray", param_hint="--gpus-per-worker")
    with connect(server) as client:
        chosen = choose(client.versions(collection), collection, name=version, space=to)
    limits = WorkerLimits(range_texts=range_texts, lease_s=lease_s)
    assignment = Assignment(
        server=server, collection=collection, version=chosen.name, workers=workers, limits=limits
    )
    job = _crew(assignment) if ray is None else _ray_job(assignment, ray, gpus_per_worker)
    started = time.perf_counter()
    tally = _run_with_progress(job, assignment.version)
    seconds = time.perf_counter() - started
    with connect(server) as client:
        chosen = client.get_version(collection, chosen.name)
    _show(Summary(version=chosen, texts=tally.texts, seconds=seconds, missing=tally.missing), as_json=as_json)


def choose(versions: Sequence[Version], collection: str, *, name: str | None, space: str | None) -> Version:
    """The newest version of that name, in that space, one that is unfinished before others; without name and
    space only an unfinished one.

    Raises NotFound where there is none.
    """
    named = [found for found in versions if name in (None, found.name) and space in (None, found.space)]
    unfinished = [found for found in named if found.state in UNFINISHED]
    fitting = unfinished if (name or space) is None else unfinished or named
    if not fitting:
        what = " ".join(part for part in (name, space and f"in the space {space}") if part)
        raise NotFound(
            f"{collection} has no version {what or 'that is unfinished'}; `ragstone rebuild` begins one"
        )
    return fitting[-1]


def _crew(assignment: Assignment) -> Job:
    return lambda on_progress: Crew(assignment, on_progress=on_progress, on_death=_tell_death).run()


def _ray_job(assignment: Assignment, address: str, gpus_per_worker: float | None) -> Job:
    """Raises FailedPrecondition where Ray is not installed."""
    try:
        from retrieval.jobs import ray_pipeline
    except ModuleNotFoundError as exc:
        raise FailedPrecondition(
            f"--ray needs the package {exc.name!r}: pip install 'ragstone-server[ray]'"
        ) from exc
    return lambda on_progress: ray_pipeline.run(
        assignment, address=address, gpus_per_worker=gpus_per_worker, on_progress=on_progress
    )


def _run_with_progress(job: Job, title: str) -> Tally:
    said = (TextColumn("{task.description}"), TextColumn("{task.fields[pace]}"))
    columns = (SpinnerColumn(), said[0], BarColumn(), TaskProgressColumn(), said[1])
    console = output.stderr()
    with Progress(*columns, console=console, transient=True, disable=not shows_progress()) as bar:
        task = bar.add_task(title, total=None, pace="")
        try:
            return job(lambda tally: bar.update(task, **look(tally, bar.tasks[0].speed)))
        except KeyboardInterrupt:
            bar.stop()
            typer.echo("ragstone: stopped; what was embedded is stored, run it again to go on", err=True)
            raise typer.Exit(130) from None


def _tell_death(number: int, exit_code: int | None) -> None:
    typer.echo(f"ragstone: worker {number} died with {exit_code}; another takes its place", err=True)


def look(tally: Tally, per_s: float | None) -> dict[str, Any]:
    """What the bar shows of a job: what this command has embedded, of that and all that is missing still."""
    left = max(0, tally.missing - len(tally.parked))
    pace = [f"{tally.texts:,} embedded, {left:,} left"]
    if per_s:
        pace.append(f"{per_s:,.0f} a second")
    if tally.parked:
        pace.append(f"{len(tally.parked):,} parked")
    return {"total": tally.texts + left, "completed": tally.texts, "pace": ", ".join(pace)}


def _show(summary: Summary, *, as_json: bool) -> None:
    value = summary.json()
    if as_json:
        output.print_json(value)
        return
    typer.echo(
        f"version {value['version']} of {value['collection']}: {summary.texts:,} texts embedded in "
        f"{summary.seconds:.1f} s, {value['texts_per_s']:,.0f} a second; {len(summary.parked):,} parked"
    )
    if summary.parked:
        output.stdout().print(output_versions.parked_table(summary.parked))
    if summary.version.state == "paused":
        typer.echo(f"`ragstone versions resume {value['collection']} {value['version']}` goes on with it")
