"""Published FID, KID and Inception Score of colour images, computed by torch-fidelity.

Needs ``pip install 'saddlepoint[fidelity]'``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from saddlepoint.errors import MissingExtraError, UsageError
from saddlepoint.extras import install
from saddlepoint.metrics.measure import Measure

EXTRACTOR = "inception-v3-compat"
RESIZE = "299 x 299, bilinear of TensorFlow 1"
NAMES = {
    "fid": "frechet_inception_distance",
    "kid": "kernel_inception_distance_mean",
    "is": "inception_score_mean",
}


def fidelity_scores(
    generated: Tensor,
    real: Tensor,
    *,
    weights: Path | None = None,
    seed: int = 0,
    split: str = "test",
    kid_subset_size: int = 1000,
    cuda: bool = False,
) -> dict[str, Measure]:
    """Return ``fid``, ``kid`` and ``is`` (Inception Score) as published, without replicates.

    All three depend on the number of images; papers use 50,000 for FID. KID is the mean over 100
    random subsets, IS the mean over 10 parts of the shuffled generated images, both determined by
    the seed.

    Args:
        generated: colour images, shape (N, 3, H, W), in [-1, 1] or uint8.
        real: colour images, shape (M, 3, H, W), in [-1, 1] or uint8.
        weights: file with torch-fidelity's InceptionV3 weights; None downloads them from its
            releases on GitHub.
        seed: seed of the subsets.
        split: the part of the data that ``real`` is.
        kid_subset_size: images in a subset; papers use 1,000.
        cuda: whether to compute on the GPU.

    Raises:
        UsageError: torch-fidelity cannot be imported; images are greyscale, too few, or have a
            wrong shape, type or range; the file of weights is not a plain state dict.

    Reference: Heusel et al. (2017), arXiv:1706.08500 (FID); Bińkowski et al. (2018),
    arXiv:1801.01401 (KID); Salimans et al. (2016), Improved Techniques for Training GANs,
    arXiv:1606.03498 (IS); Obukhov et al. (2020), torch-fidelity, github.com/toshas/torch-fidelity.

    >>> fidelity_scores(torch.zeros(5, 1, 28, 28), torch.zeros(5, 1, 28, 28))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    saddlepoint.errors.UsageError: FID, KID and IS are defined on colour images, but ...
    """
    sets = {"generated": _to_bytes("generated", generated), "real": _to_bytes("real", real)}
    min_images = max(kid_subset_size, 10)  # IS uses ten parts
    for kind, images in sets.items():
        if len(images) < min_images:
            raise UsageError(
                f"FID, KID and IS need at least {min_images} {kind} images, got {len(images)}."
                " Evaluate with more, or choose a smaller kid_subset_size, which papers do not."
            )
    if weights is not None:
        # torch-fidelity loads the file in a way that could execute code in it
        try:
            torch.load(weights, weights_only=True, map_location="cpu")
        except Exception as error:
            raise UsageError(
                f"{weights} is not a file of plain InceptionV3 weights ({type(error).__name__}:"
                f" {error}). Download weights-inception-2015-12-05-6726825d.pth from the releases"
                " of torch-fidelity."
            ) from error
    found = _calculate_metrics(
        input1=_Images(sets["generated"]),
        input2=_Images(sets["real"]),
        fid=True,
        kid=True,
        isc=True,
        cuda=cuda,
        rng_seed=seed,
        kid_subset_size=kid_subset_size,
        feature_extractor=EXTRACTOR,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
        feature_extractor_weights_path=None if weights is None else str(weights),
    )
    about: dict[str, Any] = {
        "generated": len(generated),
        "split": split,
        "extractor": EXTRACTOR,
        "resize": RESIZE,
    }
    return {
        name: Measure(float(found[key]), real=0 if name == "is" else len(real), **about)
        for name, key in NAMES.items()
    }


def weights_hash(weights: Path) -> str:
    """Return the SHA-256 of a file of weights, for a result's ``extractor_hash``."""
    return hashlib.sha256(weights.read_bytes()).hexdigest()


class _Images(Dataset[Tensor]):
    """A data set of uint8 images, the input of torch-fidelity."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def _calculate_metrics(**options: Any) -> dict[str, float]:
    try:
        import torch_fidelity
    # its import of torchvision raises RuntimeError if the versions of torch and torchvision differ
    except Exception as error:
        message = (
            "FID, KID and IS need torch-fidelity, which cannot be imported here"
            f" ({type(error).__name__}: {error}). Run: {install('fidelity')}, with a torchvision"
            " built for the installed PyTorch."
        )
        raise MissingExtraError(message, name="torch_fidelity") from error
    try:
        # torch-fidelity uses the global generator
        with torch.random.fork_rng():
            return dict(torch_fidelity.calculate_metrics(**options))
    except OSError as error:  # includes URLError
        raise UsageError(
            f"torch-fidelity cannot read or download the weights of InceptionV3 ({error}). Pass"
            " their file with weights=."
        ) from error


def _to_bytes(kind: str, images: Tensor) -> Tensor:
    """Return images as uint8; -1 becomes 0 and 1 becomes 255."""
    if images.ndim == 4 and images.shape[1] == 1:
        raise UsageError(
            f"FID, KID and IS are defined on colour images, but the {kind} images have 1 channel:"
            " values for repeated channels are not comparable with published ones. For digits use"
            " frechet[digit-cnn]."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise UsageError(
            f"FID, KID and IS need {kind} images of shape (N, 3, H, W), got {tuple(images.shape)}."
        )
    if images.dtype == torch.uint8:
        return images.cpu()
    if not images.is_floating_point() or not bool(((images >= -1) & (images <= 1)).all()):
        raise UsageError(
            f"FID, KID and IS need {kind} images in [-1, 1] or uint8, got {images.dtype} outside"
            " that range or not finite."
        )
    return (images.detach().cpu().double() + 1).mul(127.5).round().to(torch.uint8)
