"""A program: ``python optimising.py FOLDER PARENT`` builds the graphs of the shard in a folder.

The engine holds Python's lock for as long as it builds, so a server has this done by a process of its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from typing import Final

_NICENESS: Final = 10
_PR_SET_PDEATHSIG: Final = 1


def main(folder: str) -> None:
    """Build, and write it all to the folder."""
    import qdrant_edge

    shard = qdrant_edge.EdgeShard.load(folder)
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    os.nice(_NICENESS)
    with suppress(OSError, AttributeError):
        # Nobody waits for it when the server is gone. Linux only.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == int(sys.argv[2]):
        main(sys.argv[1])
