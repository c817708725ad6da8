"""Loading the user's pair by name, and the error message for each mistake."""

import sys

import pytest
import torch

import saddlepoint as sp
from saddlepoint.doctor import load_factory

SOURCE = """
import torch
from torch import nn

number = 3


def pair():
    from my_pair_helper import SIZE  # the directory is importable while the factory runs

    return nn.Identity(), nn.Identity(), torch.zeros(2, SIZE), torch.zeros(2, 1)


def three():
    return nn.Identity(), nn.Identity(), torch.zeros(2, 1)


def one():
    return nn.Identity()


def words():
    return nn.Identity(), "discriminator", torch.zeros(2, 1), torch.zeros(2, 1)


def arrays():
    return nn.Identity(), nn.Identity(), [0.0], torch.zeros(2, 1)


def broken():
    return 1 / 0
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_pair.py").write_text(SOURCE)
    (tmp_path / "my_pair_helper.py").write_text("SIZE = 5")
    (tmp_path / "my_needy.py").write_text("import no_such_package_at_all")
    (tmp_path / "my_crash.py").write_text("raise RuntimeError('no data')")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("my_pair", "my_pair_helper"):
        sys.modules.pop(name, None)


def test_a_factory_in_the_current_directory(here):
    before = list(sys.path)
    G, D, noise, real = load_factory("my_pair:pair")
    assert isinstance(G, torch.nn.Identity)
    assert isinstance(D, torch.nn.Identity)
    assert (noise.shape, real.shape) == ((2, 5), (2, 1))
    assert sys.path == before


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("my_pair", "with a colon"),
        (":pair", "with a colon"),
        ("my_pear:pair", 'There is no module "my_pear" in'),
        ("my_pair.deeper:pair", 'no module "my_pair.deeper"'),
        ("my_needy:pair", '"my_needy" imports "no_such_package_at_all", which is not installed'),
        ("my_crash:pair", r'Importing "my_crash" raised RuntimeError: no data\. Correct'),
        ("my_pair:pear", 'has no "pear". Did you mean "pair"'),
        ("my_pair:number", "is a int, not a function"),
        (
            "my_pair:broken",
            r"raised ZeroDivisionError: division by zero\. It is called without arguments",
        ),
        ("my_pair:three", "returned 3 values, not the four"),
        ("my_pair:one", "returned a Identity, not the four"),
        ("my_pair:words", "a str as discriminator, which must be a torch.nn.Module"),
        ("my_pair:arrays", "a list as example_noise, which must be a torch.Tensor"),
    ],
)
def test_each_mistake_has_its_message(here, path, text):
    with pytest.raises(sp.UsageError, match=text):
        load_factory(path)
