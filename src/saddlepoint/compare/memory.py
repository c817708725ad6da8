"""The peak of a process's memory, above what it had at the start."""

from __future__ import annotations

from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Watches only between ``start`` and ``stop``, so that evaluations do not count.

    On CUDA it is what PyTorch allocated. On Linux it is the resident memory of the process, whose
    peak the kernel lets a process reset; on other systems it is not measured.

    Attributes:
        most: bytes above those at the first start; None where it cannot be measured.
    """

    def __init__(self, device: str) -> None:
        self.most: int | None = None
        self._cuda = device == "cuda"
        self._known = self._cuda or (_STATUS.exists() and _reset())
        self._before: int | None = None

    def start(self) -> None:
        """Watch from here."""
        if not self._known:
            return
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            _reset()
        if self._before is None:
            self._before = self._peak()

    def stop(self) -> None:
        """Count the peak since ``start``."""
        if self._known and self._before is not None:
            self.most = max(self.most or 0, self._peak() - self._before)

    def _peak(self) -> int:
        if self._cuda:
            return torch.cuda.max_memory_allocated()
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])


def _reset() -> bool:
    """Set the kernel's record of the peak to the present size; say whether it let us."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True
