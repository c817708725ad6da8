"""The command line. Heavy imports are inside the commands, so that ``--help`` is fast."""

from saddlepoint.extras import needs

with needs("train", "The command line"):
    from saddlepoint.cli import (  # noqa: F401 -- each registers its command
        best,
        compare,
        diagnose,
        doctor,
        evaluate,
        list,
        report,
        resume,
        sample,
        train,
        tune,
    )
    from saddlepoint.cli.app import app
    from saddlepoint.cli.entry_point import main

__all__ = ["app", "main"]
