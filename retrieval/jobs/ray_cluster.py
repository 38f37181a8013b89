"""Ray on this machine, or a cluster that is there already, and what of it a worker gets."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import ray
import ray.data
from ray.exceptions import RayError

from ragstone.errors import BackendUnavailable, InvalidArgument

LOCAL: Final = "local"
"""The address that starts a Ray for one job, on this machine."""

_OBJECT_STORE_BYTES: Final = 256 * 1024 * 1024
"""Of a local Ray. Texts pass through it, some slices a worker at a time."""
_RUNS_A_MODEL: Final = ("sentence_transformer", "onnx")
"""Embedders that take a thread for each core they see, unless their option ``workers`` says how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What each worker gets."""

    cpus: int
    gpus: float = 0.0

    def options(self, embedder: Mapping[str, Any]) -> Mapping[str, Any]:
        """A recipe's section ``embedder`` for such a worker: Ray counts cores, it keeps nobody off others."""
        if embedder.get("kind") in _RUNS_A_MODEL and not self.gpus:
            return {**embedder, "workers": self.cpus}
        return embedder


@contextmanager
def joined(address: str) -> Iterator[None]:
    """A connection to the Ray at ``address``, which is what ``ray.init`` takes, or to one of our own.

    A Ray of our own is gone at the end, its files too. Raises BackendUnavailable where none can be reached.
    """
    # Ray has no other place to be told: no usage reports, no warnings of its core.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # noqa: TID251
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # noqa: TID251
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module=r"ray\..*")  # most of them of what Ray does itself
        ray.data.DataContext.get_current().enable_progress_bars = False
        try:
            ray.init(**_options(address, stack), log_to_driver=False, logging_level=logging.CRITICAL)
            stack.callback(ray.shutdown)
        except (RayError, RuntimeError, ConnectionError, ValueError) as exc:
            ray.shutdown()
            raise BackendUnavailable(f"no Ray at {address!r}: {exc}") from exc
        yield


def _options(address: str, stack: ExitStack) -> dict[str, Any]:
    if address != LOCAL:
        return {"address": address}
    # A socket's path has 107 characters at most; Ray's own part takes half of them, and $TMPDIR may be long.
    folder = stack.enter_context(
        tempfile.TemporaryDirectory(prefix="ragstone-ray-", dir="/tmp", ignore_cleanup_errors=True)
    )
    return {
        "address": LOCAL,
        "num_cpus": len(os.sched_getaffinity(0)),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_temp_dir": folder,
    }


def fair_share(workers: int, *, gpus_per_worker: float | None) -> Share:
    """What each of ``workers`` gets of the Ray that was joined; a GPU each where it has any.

    Raises InvalidArgument when it has no room for them all: they would wait for ever.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cpus, gpus = ([float(node.get(what, 0.0)) for node in nodes] for what in ("CPU", "GPU"))
    return share_of(cpus, gpus, workers, gpus_per_worker=gpus_per_worker)


def share_of(
    cpus: Sequence[float], gpus: Sequence[float], workers: int, *, gpus_per_worker: float | None
) -> Share:
    """The largest equal share of nodes that have so many cores and GPUs each."""
    wanted = float(any(gpus)) if gpus_per_worker is None else gpus_per_worker
    if wanted:
        if _room(gpus, wanted) < workers:
            raise InvalidArgument.at(
                "workers", f"there is room for {_room(gpus, wanted)} with {wanted:g} GPUs, not for {workers}"
            )
        return Share(cpus=1, gpus=wanted)
    fitting = [share for share in range(int(max(cpus, default=0)), 0, -1) if _room(cpus, share) >= workers]
    if not fitting:
        raise InvalidArgument.at(
            "workers", f"there is room for {_room(cpus, 1)} with a core each, not for {workers}"
        )
    return Share(cpus=fitting[0])


def _room(nodes: Sequence[float], share: float) -> int:
    return sum(int(node / share) for node in nodes)
