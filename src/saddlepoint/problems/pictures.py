"""Pictures of generated samples, drawn with Pillow."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import pad

_SCALE, _GAP = 3, 2
_SIDE = 640


def image_grid(images: Tensor) -> Image.Image:
    """Return images in [-1, 1], shape (N, C, H, W) with C = 1 or 3, as a nearly square grid, three screen pixels for each of theirs."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    framed = pad(images.clamp(-1, 1).add(1).mul(127.5).round(), [0, _GAP, 0, _GAP], value=96.0)
    missing = rows * columns - len(images)
    full = pad(framed, [0, 0, 0, 0, 0, 0, 0, missing], value=96.0)
    _, channels, height, width = full.shape
    sheet = full.view(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    pixels = sheet[:-_GAP, :-_GAP].numpy().astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return picture.resize((picture.width * _SCALE, picture.height * _SCALE), Image.Resampling.NEAREST)


def scatter(points: Tensor, centres: Tensor, radius: float) -> Image.Image:
    """Return points of the plane, shape (N, 2), over circles of the given radius around the centres of the modes."""
    limit = 1.3 * float(centres.abs().max()) + radius
    picture = Image.new("RGB", (_SIDE, _SIDE), "white")
    draw = ImageDraw.Draw(picture)
    size = max(radius / limit * _SIDE / 2, 6.0)
    for x, y in _screen(centres, limit):
        draw.ellipse((x - size, y - size, x + size, y + size), outline=(200, 60, 40), width=2)
    for x, y in _screen(points, limit):
        draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=(30, 70, 150))
    return picture


def _screen(points: Tensor, limit: float) -> list[list[float]]:
    return [[(x / limit + 1) * _SIDE / 2, (1 - y / limit) * _SIDE / 2] for x, y in points.tolist() if abs(x) < limit and abs(y) < limit]
