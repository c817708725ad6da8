"""``python -m saddlepoint``, and the command ``saddlepoint``, which every installation has."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
    # `python -m` looks there first: a user's random.py would take the place of Python's
    del sys.path[0]

from saddlepoint.errors import MissingExtraError
from saddlepoint.extras import needs


def main() -> None:
    """Run the command line; where its packages are not installed, say so in a sentence and end with exit code 2."""
    command = "".join(sys.argv[1:2])
    try:
        with needs("tune" if command in ("compare", "tune") else "train", "The command line"):
            from saddlepoint import cli
    except MissingExtraError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    cli.main()


if __name__ == "__main__":
    main()
