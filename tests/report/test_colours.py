"""The colours of the charts are told apart by everybody, and stand out from the page."""

import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest

# Machado, Oliveira and Fernandes (2009), A physiologically-based model for simulation of color
# vision deficiency, severity 1
VISIONS = {
    "all colours": np.eye(3),
    "no red": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no green": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no blue": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def colours(scheme):
    """Return the linear RGB values of the tones, and of the page, in a scheme."""
    style = (files("saddlepoint.report") / "templates" / "style.css").read_text()
    found = re.findall(r"--(tone-\w+|page): light-dark\(#(\w{6}), #(\w{6})\)", style)
    values = {name: (light, dark)[scheme == "dark"] for name, light, dark in found}
    return {
        name: linear(np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)]) / 255)
        for name, text in values.items()
    }


def linear(rgb):
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    x = XYZ @ np.clip(rgb, 0, 1) / [0.95047, 1.0, 1.08883]
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tones_are_far_apart(scheme, vision):
    seen = {
        name: lab(np.array(VISIONS[vision]) @ rgb)
        for name, rgb in colours(scheme).items()
        if name != "page"
    }
    assert len(seen) == 9
    assert min(np.linalg.norm(seen[a] - seen[b]) for a, b in combinations(seen, 2)) > 15


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tones_stand_out_from_the_page(scheme):
    found = {name: XYZ[1] @ rgb for name, rgb in colours(scheme).items()}
    page = found.pop("page")
    assert min((max(one, page) + 0.05) / (min(one, page) + 0.05) for one in found.values()) > 3.5
