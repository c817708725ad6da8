"""The examples run, small, and draw their figures."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = {
    "vanishing_gradient.py": ["--seeds", "1", "--steps", "2"],
    "oscillation.py": ["--length", "2"],
    "gan_mnist.py": ["--steps", "3"],
    "custom_rule.py": ["--steps", "5"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_examples(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, *SMALL[name], "--out", str(tmp_path)])
    with torch.random.fork_rng():
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    with Image.open(tmp_path / name.replace(".py", ".png")) as figure:
        assert figure.width > 500
    assert capsys.readouterr().out
    assert len((EXAMPLES / name).read_text().splitlines()) <= 120
