"""Pictures of generated samples, drawn with Pillow."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import pad

_SCALE, _GAP = 3, 2
_SIDE, _BINS = 640, 80


def image_grid(images: Tensor) -> Image.Image:
    """Return a nearly square grid of images in [-1, 1], shape (N, C, H, W) with C = 1 or 3."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    framed = pad(images.clamp(-1, 1).add(1).mul(127.5).round(), [0, _GAP, 0, _GAP], value=96.0)
    missing = rows * columns - len(images)
    full = pad(framed, [0, 0, 0, 0, 0, 0, 0, missing], value=96.0)
    _, channels, height, width = full.shape
    sheet = (
        full.view(rows, columns, channels, height, width)
        .permute(0, 3, 1, 4, 2)
        .reshape(rows * height, columns * width, channels)
    )
    pixels = sheet[:-_GAP, :-_GAP].numpy().astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    return picture.resize(
        (picture.width * _SCALE, picture.height * _SCALE), Image.Resampling.NEAREST
    )


def scatter(points: Tensor, centres: Tensor, radius: float) -> Image.Image:
    """Return 2-D points, shape (N, 2), over circles of the given radius around the modes."""
    limit = 1.3 * float(centres.abs().max()) + radius
    picture = Image.new("RGB", (_SIDE, _SIDE), "white")
    draw = ImageDraw.Draw(picture)
    size = max(radius / limit * _SIDE / 2, 6.0)
    for x, y in _screen(centres, limit):
        draw.ellipse((x - size, y - size, x + size, y + size), outline=(200, 60, 40), width=2)
    for x, y in _screen(points, limit):
        draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=(30, 70, 150))
    return picture


def histogram(samples: Tensor, x: Tensor, density: Tensor) -> Image.Image:
    """Return a histogram of numbers, shape (N,), in blue, with the data's density at x, in red.

    The points x are evenly spaced. The axes reach from the first to the last of them and up to 1.6
    times the density's maximum; higher bars are cut off, samples outside are not drawn.
    """
    edges = np.linspace(float(x[0]), float(x[-1]), _BINS + 1)
    heights = np.histogram(samples.numpy(), edges)[0] / (len(samples) * (edges[1] - edges[0]))
    picture = Image.new("RGB", (_SIDE, _SIDE // 2), "white")
    draw = ImageDraw.Draw(picture)
    floor, top = picture.height - 20, 1.6 * float(density.max())

    # rows from the floor of the picture to its upper edge
    bars = floor * (1 - np.minimum(heights / top, 1))
    curve = floor * (1 - np.minimum(density.double().numpy() / top, 1))
    for k, row in enumerate(bars):
        left, right = k * _SIDE / _BINS + 1, (k + 1) * _SIDE / _BINS - 1
        draw.rectangle((left, row, right, floor), fill=(120, 150, 205))
    points = list(zip(np.linspace(0, _SIDE, len(x)), curve, strict=True))
    draw.line(points, fill=(200, 60, 40), width=2)

    # axis with about twenty ticks at whole numbers strictly between its ends
    grey, low, high = (90, 90, 90), float(x[0]), float(x[-1])
    draw.line((0, floor, _SIDE, floor), fill=grey)
    every = math.ceil((high - low) / 20)
    for tick in range(math.floor(low / every) * every, math.ceil(high), every):
        if low < tick:
            place = (tick - low) / (high - low) * _SIDE
            draw.line((place, floor, place, floor + 4), fill=grey)
            draw.text((place, floor + 6), str(tick), fill=grey, anchor="mt")
    return picture


def _screen(points: Tensor, limit: float) -> list[list[float]]:
    return [
        [(x / limit + 1) * _SIDE / 2, (1 - y / limit) * _SIDE / 2]
        for x, y in points.tolist()
        if abs(x) < limit and abs(y) < limit
    ]
