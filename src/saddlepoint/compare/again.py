"""Which outcomes are none, and which ones the user wants to have made again."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Literal, get_args

from saddlepoint.compare.provenance import MadeWith, difference
from saddlepoint.training.config import Tree

Rerun = Literal["killed", "failed", "outdated"]
"""Runs whose process ended without an outcome; those and all others that failed; those that were made with other versions."""

KINDS: tuple[Rerun, ...] = get_args(Rerun)

_ENDED = "The process of the run"
# SIGHUP, SIGINT, SIGTERM, which version 0.1.0 let reach the runs
_STOPPED = re.compile(r"ended with exit code -(1|2|15)\b")


def is_interrupted(outcome: Tree) -> bool:
    """Say whether what was kept as failed was merely stopped: that is no outcome."""
    return outcome["status"] == "failed" and _STOPPED.search(outcome["error"] or "") is not None


def is_wanted_again(outcome: Tree, kinds: Collection[Rerun], now: MadeWith) -> bool:
    """Say whether an outcome, or a finished trial, is of one of the kinds.

    Args:
        outcome: with status, error and made_with.
        kinds: which ones are wanted.
        now: what it would be made with now.
    """
    failed = outcome["status"] == "failed"
    if failed and (
        "failed" in kinds or ("killed" in kinds and (outcome["error"] or "").startswith(_ENDED))
    ):
        return True
    return "outdated" in kinds and difference(outcome["made_with"], now) is not None
