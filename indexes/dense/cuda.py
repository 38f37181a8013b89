"""The CUDA runtime that FAISS has loaded: FAISS does not tell how much memory is free, and this does.

It is asked through ctypes, so that it is FAISS's own, whichever one PyTorch has, or none.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final, Self

from indexes.dense.gpu_memory import DeviceMemory
from ragstone.errors import BackendUnavailable

_LIBRARIES: Final = ("libcudart.so.13", "libcudart.so.12")


class CudaRuntime:
    """Asks about the current device: the first of those that ``CUDA_VISIBLE_DEVICES`` leaves visible."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p

    @classmethod
    def loaded(cls) -> Self | None:
        """The runtime in this process, None when there is none."""
        for name in _LIBRARIES:
            try:
                return cls(ctypes.CDLL(name, mode=os.RTLD_NOW | os.RTLD_NOLOAD))
            except OSError:
                continue
        return None

    def fault(self) -> str:
        """Why there is no device, in the runtime's words; empty when there is one."""
        count = ctypes.c_int(0)
        code = self._library.cudaGetDeviceCount(ctypes.byref(count))
        if code:
            return self._explain(code)
        return "" if count.value else "no CUDA device is visible"

    def memory(self) -> DeviceMemory:
        """What the device has, and what of it is free. Raises BackendUnavailable when it does not tell."""
        free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
        code = self._library.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
        if code:
            raise BackendUnavailable(f"the GPU does not tell its memory: {self._explain(code)}")
        return DeviceMemory(free=free.value, total=total.value)

    def _explain(self, code: int) -> str:
        text: bytes = self._library.cudaGetErrorString(code)
        return text.decode()
