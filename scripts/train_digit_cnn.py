"""Train the feature extractor of the digit metrics on the full MNIST and write its weights beside
its code.

    python scripts/train_digit_cnn.py DIRECTORY_WITH_IDX_FILES

Takes a few minutes on two cores. Adam with a one-cycle learning rate, shifts of up to two pixels,
weight decay 1e-4.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from saddlepoint.data.images import LabelledImages, load_mnist
from saddlepoint.metrics.digit_cnn import WEIGHTS, DigitCNN

EPOCHS, BATCH, SHIFT = 12, 128, 2


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift the whole batch by up to SHIFT pixels each way, filling with background."""
    down, right = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, [SHIFT] * 4, value=-1.0)
    return padded[..., SHIFT + down : SHIFT + down + 28, SHIFT + right : SHIFT + right + 28]


@torch.no_grad()
def accuracy(network: DigitCNN, data: LabelledImages) -> float:
    network.eval()
    hits = sum(
        int((network(x).argmax(1) == y).sum())
        for x, y in zip(data.images.split(1000), data.labels.split(1000), strict=True)
    )
    return hits / len(data)


def main(source: Path) -> None:
    train, test = load_mnist(source)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = DigitCNN()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    steps = EPOCHS * (len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    for epoch in range(EPOCHS):
        network.train()
        for chosen in torch.randperm(len(train), generator=generator)[
            : steps // EPOCHS * BATCH
        ].split(BATCH):
            loss = F.cross_entropy(
                network(shifted(train.images[chosen], generator)), train.labels[chosen]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(
            f"epoch {epoch + 1}: accuracy on the {len(test)} test images"
            f" {accuracy(network, test):.4f}",
            flush=True,
        )
    save_file(network.state_dict(), WEIGHTS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
