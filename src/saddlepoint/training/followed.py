"""The run directory as the processes see it that do not write it."""

from __future__ import annotations

from typing import Any

from PIL import Image

from saddlepoint.training.run_directory import RunDirectory


class FollowedRun(RunDirectory):
    """A run that process 0 records: nothing is written here, and nothing needs to lie here either."""

    def log(self, line: dict[str, Any]) -> None: ...

    def truncate_log(self, step: int, rollbacks: int | None = None) -> None: ...

    def write_summary(self, summary: dict[str, Any]) -> None: ...

    def save_picture(self, picture: Image.Image, step: int) -> None: ...

    def save_checkpoint(
        self,
        state: dict[str, Any],
        step: int,
        keep: int,
        *,
        spare: int | None = None,
        best: bool = False,
    ) -> None: ...

    def discard(self) -> None: ...

    def drop_checkpoints_after(self, step: int) -> None: ...
