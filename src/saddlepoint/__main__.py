"""``python -m saddlepoint``, and the command ``saddlepoint``, which every installation has."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
    # `python -m` searches the current directory first: a file random.py would shadow Python's
    del sys.path[0]

from saddlepoint.errors import MissingExtraError
from saddlepoint.extras import needs


def main() -> None:
    """Run the command line; exit with a message and code 2 where its packages are missing."""
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
