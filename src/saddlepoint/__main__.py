"""``python -m saddlepoint``."""

import os
import sys

if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]  # `python -m` looks there first: a user's random.py would take the place of Python's

from saddlepoint.cli import main

main()
