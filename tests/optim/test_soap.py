"""SOAP against the published formula written out, another implementation, and what theory says of
it."""

import pytest
import pytorch_optimizer
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import saddlepoint as sp
from saddlepoint import rules
from saddlepoint.optim import SOAP


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(dtype):
    """Convolution and square linear layers, whose gradients fill every factor: else rounding
    chooses the basis of its null space."""
    with torch.random.fork_rng():
        net = nn.Sequential(
            nn.Unflatten(1, (2, 4, 4)),
            nn.Conv2d(2, 4, 3),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(16, 16),
            nn.Tanh(),
            nn.Linear(16, 16),
        ).to(dtype)
    for number, p in enumerate(net.parameters()):
        p.data = (0.3 * draw(*p.shape, seed=number)).to(dtype)
    return net


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"frequency": 3, "betas": (0.0, 0.9)}, {"precondition_frequency": 3, "betas": (0.0, 0.9)}),
        (
            {"max_dimension": 10, "weight_decay": 0.0},
            {"max_precondition_dim": 10, "weight_decay": 0.0},
        ),
        ({"factor_beta": 0.8, "eps": 1e-6}, {"shampoo_beta": 0.8, "eps": 1e-6}),
    ],
    ids=["published", "often, without momentum", "long sides left out", "other decays"],
)
def test_the_trajectory_is_that_of_another_implementation(ours, theirs):
    mine, other = network(torch.float64), network(torch.float64)
    pairs = (
        (mine, SOAP(mine.parameters(), **ours)),
        (other, pytorch_optimizer.SOAP(other.parameters(), **theirs)),
    )
    for step in range(51):  # the first gradient moves nothing
        x = draw(256, 32, seed=step)
        target = x[:, :16].sin() * torch.linspace(1.0, 3.0, 16, dtype=torch.float64)
        for net, optimizer in pairs:
            optimizer.zero_grad()
            (net(x) - target).square().mean().backward()
            optimizer.step()
    gap = max(
        float((p - q).detach().abs().max())
        for p, q in zip(mine.parameters(), other.parameters(), strict=True)
    )
    moved = max(
        float((p - q).detach().abs().max())
        for p, q in zip(mine.parameters(), network(torch.float64).parameters(), strict=True)
    )
    assert gap < 1e-5, "their QR is in single precision, ours in that of the parameters"
    assert moved > 0.1


def test_the_published_formula_written_out():
    """Momentum in the parameters' own basis, projected anew in every step, as published."""
    W, (b1, b2), lr, eps, every = draw(4, 3).requires_grad_(), (0.9, 0.8), 0.1, 1e-8, 2
    optimizer = SOAP([W], lr=lr, betas=(b1, b2), eps=eps, frequency=every, weight_decay=0.02)
    theta, m, v, L, R, QL, QR = W.detach().clone(), 0, 0, 0, 0, None, None
    for step in range(8):
        G = draw(4, 3, seed=20 + step) @ torch.diag(
            torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64)
        )
        if step:
            m, v = b1 * m + (1 - b1) * G, b2 * v + (1 - b2) * (QL.T @ G @ QR) ** 2
            corrected = (QL.T @ m @ QR / (1 - b1**step)) / (
                (v.sqrt() + eps) / (1 - b2**step) ** 0.5
            )
            theta = (theta - lr * QL @ corrected @ QR.T) * (1 - lr * 0.02)
        L, R = b2 * L + (1 - b2) * G @ G.T, b2 * R + (1 - b2) * G.T @ G
        if step == 0:
            QL, QR = (torch.linalg.eigh(F)[1].flip(1) for F in (L, R))
        elif step % every == 0:
            orders = [
                (Q.T @ F @ Q).diagonal().argsort(descending=True) for F, Q in ((L, QL), (R, QR))
            ]
            v = v[orders[0]][:, orders[1]]
            QL, QR = (
                torch.linalg.qr((F @ Q)[:, order])[0]
                for F, Q, order in ((L, QL, orders[0]), (R, QR, orders[1]))
            )
        W.grad = G
        optimizer.step()
        torch.testing.assert_close(W.detach(), theta, rtol=0, atol=1e-12)


def test_vectors_see_adam_one_gradient_later():
    x, y = draw(6).requires_grad_(), draw(6).requires_grad_()
    soap = SOAP([x], lr=0.1, betas=(0.9, 0.99), weight_decay=0.0, eps=1e-16)
    adam = torch.optim.Adam([y], lr=0.1, betas=(0.9, 0.99), eps=1e-16)
    for step in range(6):
        for p, optimizer in ((x, soap), (y, adam)):
            p.grad = draw(6, seed=step) + 1
            if step or optimizer is soap:
                optimizer.step()
        torch.testing.assert_close(x, y)


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_rotating_the_parameters_rotates_the_path(seed):
    """Unlike Adam's, the path does not depend on the basis of the parameters."""
    left, right = (torch.linalg.qr(draw(3, 3, seed=seed + n))[0] for n in (2, 3))
    plain, turned = (torch.zeros(3, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    for kind in (SOAP, torch.optim.Adam):
        pair = [
            kind([p], lr=0.05, **({"frequency": 1, "weight_decay": 0.0} if kind is SOAP else {}))
            for p in (plain, turned)
        ]
        for step in range(6):
            plain.grad = draw(3, 3, seed=seed + 10 * step)
            turned.grad = left @ plain.grad @ right.T
            for optimizer in pair:
                optimizer.step()
        same = torch.allclose(left @ plain.detach() @ right.T, turned.detach(), rtol=0, atol=1e-6)
        assert same == (kind is SOAP)


def test_the_first_gradient_of_a_parameter_only_sets_its_basis():
    first, late = draw(3, 2).requires_grad_(), draw(3, 2, seed=1).requires_grad_()
    optimizer = SOAP([first, late], lr=0.1)
    start = [p.detach().clone() for p in (first, late)]
    first.grad = draw(3, 2, seed=2)
    optimizer.step()
    assert torch.equal(first.detach(), start[0])
    late.grad = draw(3, 2, seed=3)
    optimizer.step()
    assert not torch.equal(first.detach(), start[0])
    assert torch.equal(late.detach(), start[1])


def test_a_state_dict_goes_on_with_the_bases(tmp_path):
    def gradients(step):
        return [
            draw(4, 3, seed=3 * step),
            draw(2, 2, 2, seed=3 * step + 1),
            draw(5, seed=3 * step + 2),
        ]

    ends = []
    for interrupted in (False, True):
        parameters = [t.requires_grad_() for t in gradients(100)]
        optimizer = SOAP(parameters, lr=0.1, frequency=2)
        for step in range(7):
            if interrupted and step == 4:
                torch.save(optimizer.state_dict(), tmp_path / "state.pt")
                optimizer = SOAP(parameters, lr=0.1, frequency=2)
                optimizer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
            for p, g in zip(parameters, gradients(step), strict=True):
                p.grad = g
            optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for p in parameters]))
    assert torch.equal(*ends)


@pytest.mark.parametrize(
    "rule",
    [
        rules.GradientDescent(),
        rules.Optimistic(),
        rules.SymplecticGradientAdjustment(),
        rules.Consensus(gamma=0.1),
    ],
)
def test_under_a_rule_it_sees_that_rule_s_directions(tiny_gan, rule):
    """The same path as SOAP fed by hand with the directions that the rule gives under SGD at the
    same points."""
    gan, shadow = tiny_gan(), tiny_gan()
    optimizer = sp.GameOptimizer(
        {p: SOAP(t, lr=0.05, frequency=2, weight_decay=0.0) for p, t in gan.players.items()}, rule
    )
    seeing = sp.GameOptimizer(
        {p: torch.optim.SGD(t, lr=0.0) for p, t in shadow.players.items()}, rule
    )
    inner, seen = (
        {p: SOAP(t, lr=0.05, frequency=2, weight_decay=0.0) for p, t in shadow.players.items()},
        {},
    )
    # at rate 0 it moves nothing, and shows what it is given
    for player, sgd in seeing.optimizers.items():
        sgd.register_step_pre_hook(
            lambda own, *_, player=player: seen.update(
                {player: [p.grad.clone() for p in shadow.players[player]]}
            )
        )
    for _ in range(5):
        optimizer.step(gan.losses)
        seeing.step(shadow.losses)
        for player, gradients in seen.items():
            for p, g in zip(shadow.players[player], gradients, strict=True):
                p.grad = g
            inner[player].step()
            inner[player].zero_grad()
    assert torch.equal(gan.theta(), shadow.theta())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lr": -1.0}, "SOAP: lr=-1.0 must be at least 0"),
        ({"betas": (1.0, 0.9)}, r"SOAP: betas\[0\]=1.0 must be less than 1"),
        ({"betas": (0.9, -0.1)}, r"SOAP: betas\[1\]=-0.1 must be at least 0"),
        ({"factor_beta": 1.5}, "SOAP: factor_beta=1.5 must be less than 1"),
        ({"frequency": 0}, "SOAP: frequency=0 must be at least 1"),
        ({"max_dimension": -1}, "SOAP: max_dimension=-1 must be at least 0"),
    ],
)
def test_options_are_checked_at_construction(options, text):
    with pytest.raises(sp.UsageError, match=text):
        SOAP([torch.zeros(2, 2, requires_grad=True)], **options)


def test_a_gradient_that_is_not_finite_moves_nothing_and_stays_out_of_the_factors():
    W = draw(3, 2).requires_grad_()
    optimizer = SOAP([W], lr=0.1)
    W.grad = draw(3, 2, seed=1)
    optimizer.step()
    before, factors = W.detach().clone(), [F.clone() for F in optimizer.state[W]["factors"]]
    W.grad = torch.full((3, 2), float("nan"), dtype=torch.float64)
    with pytest.raises(
        sp.DivergenceError, match=r"SOAP: gradient 0, shape \(3, 2\), is not finite"
    ):
        optimizer.step()
    assert torch.equal(W.detach(), before)
    assert all(
        torch.equal(a, b) for a, b in zip(factors, optimizer.state[W]["factors"], strict=True)
    )
