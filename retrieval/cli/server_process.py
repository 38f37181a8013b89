"""A server as a process of its own, for the length of a ``with`` block."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from ragstone import Client, Health
from ragstone.errors import BackendUnavailable

START_S: Final = 120.0
STOP_S: Final = 30.0
ANNOUNCEMENT: Final = "serving on "


class ServerProcess:
    """Starts ``ragstone serve`` on a free port; stops it by SIGTERM and expects exit code 0.

    Its log goes to ``server.log`` in the data directory. Raises BackendUnavailable, with the end of
    that log, when the server does not start or stops badly.
    """

    def __init__(self, data_dir: Path, *, config: Path | None = None) -> None:
        self._data_dir = data_dir
        self._config = config
        self._log = data_dir / "server.log"
        self.address = ""

    def __enter__(self) -> ServerProcess:
        command = [sys.executable, "-m", "retrieval.cli.app", "serve"]
        options = ["--data-dir", str(self._data_dir), "--listen", "127.0.0.1:0"]
        options += ["--config", str(self._config)] if self._config else []
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C reaches the demo alone, which then stops the server in order.
            self._process = subprocess.Popen(
                command + options, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        try:
            self.address = self._read_address()
            self._wait_until_serving()
        except BaseException:
            self._end()
            raise
        return self

    @property
    def pid(self) -> int:
        """The process's id, while it runs."""
        return self._process.pid

    def __exit__(self, kind: object, *_: object) -> None:
        self._process.terminate()
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        finally:
            self._end()
        if code != 0 and kind is None:
            raise BackendUnavailable(f"the server stopped with code {code}; its log ends: {self._log_end()}")

    def _read_address(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if ANNOUNCEMENT in line:
                return line.partition(ANNOUNCEMENT)[2].strip()
        raise BackendUnavailable(f"the server did not start; its log ends: {self._log_end()}")

    def _wait_until_serving(self) -> None:
        give_up = time.monotonic() + START_S
        with Client(self.address) as client:
            while client.health() is not Health.SERVING:
                if time.monotonic() > give_up:
                    raise BackendUnavailable(f"the server is not ready after {START_S:g} s")
                time.sleep(0.1)

    def _end(self) -> None:
        """Make sure that it is gone; does nothing to a server that has already stopped."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def _log_end(self) -> str:
        return self._log.read_text("utf-8", "replace")[-2_000:]
