"""Make the embedded digits from the full MNIST: per class the first 1,000 training and 200 test
images, in their order.

    python scripts/build_digits.py DIRECTORY_WITH_IDX_FILES

Source: Y. LeCun, C. Cortes and C. Burges, the MNIST database of handwritten digits, CC BY-SA 3.0.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from saddlepoint.data.idx import read_idx, write_idx
from saddlepoint.data.images import EMBEDDED

PER_CLASS = {"train": 1000, "t10k": 200}


def main(source: Path) -> None:
    EMBEDDED.mkdir(exist_ok=True)
    for prefix, count in PER_CLASS.items():
        images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
        chosen = np.sort(
            np.concatenate([np.flatnonzero(labels == digit)[:count] for digit in range(10)])
        )
        write_idx(EMBEDDED / f"{prefix}-images-idx3-ubyte.gz", images[chosen])
        write_idx(EMBEDDED / f"{prefix}-labels-idx1-ubyte.gz", labels[chosen])
    for path in sorted(EMBEDDED.glob("*.gz")):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
