"""Lock files of the kernel (``flock``): a lock ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FileLock:
    """A lock on a file, shared by several processes or exclusive to one.

    Raises:
        OSError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+")

    def acquire_shared(self) -> None:
        """Acquire the shared lock; block while another process holds the exclusive one."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def try_acquire_exclusive(self) -> bool:
        """Release a shared lock, try to acquire the exclusive one, and return whether it succeeded.

        After a failure this process holds no lock.
        """
        fcntl.flock(self._file, fcntl.LOCK_UN)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def write_owner(self) -> None:
        """Write into the file that this process holds the lock."""
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {platform.node()}\n")
        self._file.flush()

    def read_owner(self) -> str:
        """Return the process that called ``write_owner`` last."""
        self._file.seek(0)
        return self._file.read(200).strip() or "another process"

    def close(self) -> None:
        """Release the lock and close the file."""
        self._file.close()


@contextmanager
def exclusive_lock(path: Path) -> Iterator[str | None]:
    """Hold the exclusive lock of a file inside the ``with`` block.

    Yields:
        None, or the owner where another process holds the lock.

    Raises:
        OSError: the file cannot be written.
    """
    lock = FileLock(path)
    try:
        if lock.try_acquire_exclusive():
            lock.write_owner()
            yield None
        else:
            yield lock.read_owner()
    finally:
        lock.close()
