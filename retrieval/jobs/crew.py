"""Several workers of a re-embedding job on one machine, each a process; one that dies is replaced."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

from ragstone import AsyncClient
from ragstone.errors import BackendUnavailable, RagstoneError
from retrieval.jobs.borrowing import Tally, WorkerLimits
from retrieval.jobs.reembedding import Worker
from retrieval.telemetry import configure_logging

_DEATHS: Final = 10
"""Of workers, one after the other without a text between them, until the crew gives up."""
_STOP_S: Final = 10.0

_processes = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a crew works at, for how many workers."""

    server: str
    collection: str
    version: str
    workers: int = 1
    limits: WorkerLimits = field(default_factory=WorkerLimits)


@dataclass(slots=True)
class _Member:
    number: int
    process: BaseProcess
    reports: Connection
    """Tallies while it works, None at its end, or the error that ended it."""
    tally: Tally = field(default_factory=Tally)


class Crew:
    """The workers of one assignment."""

    def __init__(
        self,
        assignment: Assignment,
        *,
        on_progress: Callable[[Tally], None] = lambda _: None,
        on_death: Callable[[int, int | None], None] = lambda number, exit_code: None,
    ) -> None:
        self._assignment = assignment
        self._on_progress = on_progress
        self._on_death = on_death
        self._members: dict[Connection, _Member] = {}
        self._ended: list[Tally] = []
        self._missing = 0
        self._deaths = 0

    def run(self) -> Tally:
        """Work until every worker has ended. Raises the first error of a worker, after all were stopped.

        A worker that is killed is replaced; its texts come back when its lease expires. Raises
        BackendUnavailable when workers die again and again without having embedded anything.
        """
        try:
            for number in range(self._assignment.workers):
                self._hire(number)
            while self._members:
                for reports in wait(list(self._members)):
                    assert isinstance(reports, Connection)
                    self._hear(self._members[reports])
        finally:
            self._dismiss()
        return self._total()

    def _hire(self, number: int) -> None:
        here, there = _processes.Pipe(duplex=False)
        process = _processes.Process(
            target=_work, args=(self._assignment, number, there), name=f"reembed-{number}", daemon=True
        )
        process.start()
        # Only the worker holds the other end now: its death closes the pipe.
        there.close()
        self._members[here] = _Member(number, process, here)

    def _hear(self, member: _Member) -> None:
        try:
            report = member.reports.recv()
        except EOFError:
            self._bury(member)
            return
        if isinstance(report, RagstoneError):
            raise report
        if report is None:
            self._leave(member)
            return
        if report.texts > member.tally.texts:
            self._deaths = 0
        member.tally, self._missing = report, report.missing
        self._on_progress(self._total())

    def _leave(self, member: _Member) -> None:
        del self._members[member.reports]
        self._ended.append(member.tally)
        member.process.join()
        member.reports.close()

    def _bury(self, member: _Member) -> None:
        self._leave(member)
        self._deaths += 1
        code = member.process.exitcode
        self._on_death(member.number, code)
        if self._deaths >= _DEATHS:
            raise BackendUnavailable(f"{self._deaths} workers died one after the other, the last with {code}")
        self._hire(member.number)

    def _dismiss(self) -> None:
        for member in self._members.values():
            member.process.terminate()
        for member in self._members.values():
            member.process.join(_STOP_S)
            member.process.kill()

    def _total(self) -> Tally:
        tallies = [*self._ended, *(member.tally for member in self._members.values())]
        return Tally(
            texts=sum(tally.texts for tally in tallies),
            missing=self._missing,
            parked=[reason for tally in tallies for reason in tally.parked],
        )


def _work(assignment: Assignment, number: int, reports: Connection) -> None:
    """A worker's process. It ends when its crew is gone: then nobody reads the pipe."""
    configure_logging("warning")
    _take_share_of_cores(number, assignment.workers)
    with suppress(BrokenPipeError, KeyboardInterrupt):
        try:
            asyncio.run(_run(assignment, number, reports))
        except RagstoneError as exc:
            reports.send(exc)
        else:
            reports.send(None)


async def _run(assignment: Assignment, number: int, reports: Connection) -> None:
    async with AsyncClient(assignment.server) as client:
        worker = Worker(
            client,
            assignment.collection,
            assignment.version,
            name=f"{socket.gethostname()}/{os.getpid()}/{number}",
            limits=assignment.limits,
            on_progress=reports.send,
        )
        await worker.run()


def _take_share_of_cores(number: int, workers: int) -> None:
    """Models take a thread for each core that they may use: together the workers should have one each."""
    cores = sorted(os.sched_getaffinity(0))
    if 1 < workers <= len(cores):
        os.sched_setaffinity(0, cores[number::workers])
