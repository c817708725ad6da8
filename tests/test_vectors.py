import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saddlepoint import Vector

shapes = st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=3)
layouts = st.dictionaries(st.sampled_from(["x", "y", "z"]), shapes, min_size=1)


def random_vector(layout: dict[str, list[list[int]]], seed: int) -> Vector:
    g = torch.Generator().manual_seed(seed)
    return Vector(
        {
            p: [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]
            for p, shapes in layout.items()
        }
    )


@given(layouts, st.floats(-3, 3))
def test_arithmetic_is_that_of_the_flat_vectors(layout, factor):
    a, b = random_vector(layout, 1), random_vector(layout, 2)
    for found, expected in [
        (a + b, a.flatten() + b.flatten()),
        (a - b, a.flatten() - b.flatten()),
        (factor * a, factor * a.flatten()),
        (a * b, a.flatten() * b.flatten()),
        (a / b, a.flatten() / b.flatten()),
        (-a, -a.flatten()),
        ((a * a).sqrt(), a.flatten().abs()),
        (a.zeros(), torch.zeros_like(a.flatten())),
    ]:
        torch.testing.assert_close(found.flatten(), expected)
    torch.testing.assert_close(a.dot(b), a.flatten().dot(b.flatten()))
    torch.testing.assert_close(a.norm(), a.flatten().norm())


@given(layouts)
def test_unflatten_undoes_flatten(layout):
    v = random_vector(layout, 3)
    again = v.unflatten(v.flatten())
    assert list(again) == list(v)
    assert all(torch.equal(p, q) for p, q in zip(v.tensors, again.tensors, strict=True))


def test_players_are_matched_by_name_not_by_position():
    a = Vector({"x": [torch.tensor([1.0])], "y": [torch.tensor([2.0])]})
    b = Vector({"y": [torch.tensor([20.0])], "x": [torch.tensor([10.0])]})
    assert (a + b).flatten().tolist() == [11.0, 22.0]


def test_different_players_do_not_combine():
    with pytest.raises(
        ValueError, match=r"vectors of the players \['x'\] and \['y'\] cannot be combined"
    ):
        Vector({"x": [torch.ones(1)]}) + Vector({"y": [torch.ones(1)]})


def test_scale_gives_each_tensor_its_own_factor():
    v = Vector({"x": [torch.ones(2), torch.ones(1)], "y": [torch.ones(1)]})
    assert v.scale({"x": [2.0, 3.0], "y": [4.0]}).flatten().tolist() == [2.0, 2.0, 3.0, 4.0]


def test_clone_shares_no_memory():
    original = torch.ones(1)
    copy = Vector({"x": [original]}).clone()
    original.zero_()
    assert copy["x"][0].item() == 1.0
