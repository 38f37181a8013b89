"""A real vLLM server as a process of its own, from the venv that `make vllm` makes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = REPOSITORY / ".venv-vllm" / "bin" / "python"
MODELS: Final = REPOSITORY / ".cache" / "vllm"
START_S: Final = 180.0
STOP_S: Final = 15.0
MIB: Final = 1 << 20


def missing(model: str = "tiny") -> str | None:
    """Why there can be no server here, or None."""
    for needed in (PYTHON, MODELS / model / "config.json"):
        if not needed.exists():
            return f"no vLLM: {needed.relative_to(REPOSITORY)} is missing; `make vllm` makes it"
    return None


def environment(folder: Path) -> dict[str, str]:
    """What a process with vLLM in it needs, which is to write nowhere but in ``folder``."""
    places = ("VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR")
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("VLLM_", "PYTHON", "COV_"))
    }
    return {
        **kept,
        **dict.fromkeys(places, str(folder)),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }


@dataclass(kw_only=True)
class VllmServer:
    """One vLLM process group; a context manager. ``start`` raises RuntimeError with the end of its log."""

    model: str = "tiny"
    """Of tests/vllm/make_model.py; also the name it is served by."""
    max_model_tokens: int = 2_048
    kv_cache_bytes: int = 64 * MIB
    """tiny takes 1 KiB a token, mid 16 KiB."""
    max_sequences: int = 8
    block_size: int = 32
    dev_mode: bool = False
    """Adds POST /reset_prefix_cache."""
    arguments: tuple[str, ...] = ()
    """More of vLLM's own, such as ``("--max-num-queued-reqs", "8")``."""
    port: int = 0
    """0 takes a free one at the first start, and keeps it."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _folder: tempfile.TemporaryDirectory[str] | None = field(default=None, init=False, repr=False)

    @property
    def running(self) -> bool:
        """Whether it was started and not ended since."""
        return self._process is not None

    @property
    def root_url(self) -> str:
        """Where /health, /metrics and /tokenize are."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What OpenAI's clients call the base URL."""
        return f"{self.root_url}/v1"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it is healthy."""
        self.port = self.port or _free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="ragstone-vllm-", ignore_cleanup_errors=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._folder.name,
                env=self._environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                # SIGKILL of the server alone would leave its workers running: the group is what ends.
                start_new_session=True,
            )
        try:
            self._wait_until_healthy()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it in an orderly way, all its processes too; nothing when it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a machine that goes away does; ``start`` starts it anew on the same port."""
        self._end(signal.SIGKILL)

    def metric(self, name: str) -> float:
        """One of /metrics, by its full name ("..._total" if it is a counter), summed over its labels."""
        text = httpx.get(f"{self.root_url}/metrics").raise_for_status().text
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        values = [one.value for one in samples if one.name == name]
        if not values:
            raise KeyError(f"{name} is none of vLLM's metrics: {sorted({one.name for one in samples})}")
        return sum(values)

    def count_tokens(self, text: str) -> int:
        """How many tokens the model makes of a text, without special ones."""
        asked = {"model": self.model, "prompt": text, "add_special_tokens": False}
        return int(httpx.post(f"{self.root_url}/tokenize", json=asked).raise_for_status().json()["count"])

    def reset_prefix_cache(self) -> None:
        """Forget all cached blocks (``dev_mode`` only)."""
        httpx.post(f"{self.root_url}/reset_prefix_cache").raise_for_status()

    @property
    def _log(self) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / "log"

    def _command(self) -> list[str]:
        structured = {"backend": "guidance", "disable_any_whitespace": True}
        flags = {
            "--model": str(MODELS / self.model),
            "--served-model-name": self.model,
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--max-model-len": str(self.max_model_tokens),
            "--max-num-seqs": str(self.max_sequences),
            "--block-size": str(self.block_size),  # a CPU's default, 128, would hide most shared prefixes
            "--kv-cache-memory-bytes": str(self.kv_cache_bytes),  # else it wants nearly all of the memory
            "--scheduling-policy": "priority",
            "--structured-outputs-config": json.dumps(structured),
        }
        switches = ["--enable-prefix-caching", "--enable-prompt-tokens-details", "--enforce-eager"]
        named = [part for pair in flags.items() for part in pair]
        module = "vllm.entrypoints.openai.api_server"
        return [str(PYTHON), "-m", module, *named, *switches, *self.arguments]

    def _environment(self) -> dict[str, str]:
        assert self._folder is not None
        return environment(Path(self._folder.name)) | {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_SERVER_DEV_MODE": "1" if self.dev_mode else "0",
        }

    def _wait_until_healthy(self) -> None:
        assert self._process is not None
        give_up = time.monotonic() + START_S
        while not self._healthy():
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"vLLM ended with {self._process.returncode}; its log ends: {self._tail()}"
                )
            if time.monotonic() > give_up:
                raise RuntimeError(f"vLLM is not healthy after {START_S:.0f} s; its log ends: {self._tail()}")
            time.sleep(0.2)

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.root_url}/health", timeout=5.0).is_success
        except httpx.TransportError:
            return False

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-3_000:]

    def _end(self, how: signal.Signals) -> None:
        if self._process is None or self._folder is None:
            return
        process, self._process = self._process, None
        _signal_group(process.pid, how)
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        finally:
            _signal_group(process.pid, signal.SIGKILL)  # whoever of its children is left
            process.wait()
            self._folder.cleanup()


def _signal_group(group: int, how: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, how)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
