"""What is timed: steps written by hand, and the same with a rule of the library."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from benchmarks.pairs import D, G, Pair
from saddlepoint import GameOptimizer, Rule, registry
from saddlepoint.optim import NormalizedSubgradient, SignSubgradient, Subgradient

Step = Callable[[], object]
ADAM: dict[str, Any] = {"lr": 1e-4, "betas": (0.5, 0.999), "fused": True}


def optimizers(pair: Pair, kind: Callable[..., Optimizer], **options: Any) -> dict[str, Optimizer]:
    return {player: kind(pair.parameters(player), **options) for player in (D, G)}


def alternating_by_hand(pair: Pair, kind: Callable[..., Optimizer] = Adam, **options: Any) -> Step:
    """The loop of a GAN script: the discriminator on detached samples, then the generator."""
    inner = optimizers(pair, kind, **(options or ADAM))

    def step() -> None:
        pair.draw()
        for player, optimizer in inner.items():
            optimizer.zero_grad()
            loss = pair.only(player)()[player]
            for p, g in zip(
                pair.parameters(player),
                torch.autograd.grad(loss, pair.parameters(player)),
                strict=True,
            ):
                p.grad = g
            optimizer.step()

    return step


def joint_gradient(pair: Pair) -> dict[str, tuple[Tensor, ...]]:
    pair.draw()
    losses = pair.losses()
    return {
        player: torch.autograd.grad(
            losses[player], pair.parameters(player), retain_graph=player == D
        )
        for player in (D, G)
    }


def simultaneous_by_hand(pair: Pair, kind: Callable[..., Optimizer] = Adam, **options: Any) -> Step:
    """Both players' gradients from one evaluation, then both updates."""
    inner = optimizers(pair, kind, **(options or ADAM))

    def step() -> None:
        for player, gradients in joint_gradient(pair).items():
            for p, g in zip(pair.parameters(player), gradients, strict=True):
                p.grad = g
        for optimizer in inner.values():
            optimizer.step()
            optimizer.zero_grad()

    return step


def consensus_by_hand(pair: Pair, gamma: float = 0.1) -> Step:
    """ξ + γ Jᵀξ in as few calls as autograd needs: the floor of a rule with one product."""
    inner, parameters = optimizers(pair, Adam, **ADAM), [*pair.parameters(D), *pair.parameters(G)]

    def step() -> None:
        pair.draw()
        losses = pair.losses()
        xi = [
            g
            for player in (D, G)
            for g in torch.autograd.grad(losses[player], pair.parameters(player), create_graph=True)
        ]
        product = torch.autograd.grad(
            xi, parameters, grad_outputs=[g.detach() for g in xi], allow_unused=True
        )
        for p, g, adjusted in zip(parameters, xi, product, strict=True):
            p.grad = g.detach() if adjusted is None else g.detach().add(adjusted, alpha=gamma)
        for optimizer in inner.values():
            optimizer.step()
            optimizer.zero_grad()

    return step


def with_rule(
    pair: Pair, rule: Rule | None, inner: Mapping[str, Optimizer], *, alternating: bool = False
) -> tuple[Step, GameOptimizer]:
    """A step of the library; warnings about unconverged solves are not of interest here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = GameOptimizer(inner, rule, modules=pair.networks.values())
    turns = [pair.only(D), pair.only(G)] if alternating else [pair.losses]

    def step() -> None:
        pair.draw()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for turn in turns:
                optimizer.step(turn)

    return step, optimizer


def registered(pair: Pair, name: str) -> tuple[Step, GameOptimizer]:
    """A rule with the optimizer and options that it brings to ``saddlepoint train``."""
    recipe = registry.RECIPES[name]
    pair.saturating = recipe.loss == "minimax"
    chosen = dict(recipe.optimizer)
    kind = chosen.pop("name")
    options = {**registry.OPTIMIZERS[kind].options, **chosen}
    players = options.pop("players", {})
    inner = {
        player: registry.build_optimizer(
            kind, pair.networks[player].named_parameters(), {**options, **players.get(player, {})}
        )
        for player in (D, G)
    }
    return with_rule(
        pair,
        registry.build_recipe_rule(name),
        inner,
        alternating=recipe.update_scheme == "alternating",
    )


def plain_sgd(pair: Pair, lr: float = 1e-3) -> dict[str, Optimizer]:
    return optimizers(pair, SGD, lr=lr)


def sign_steps(
    device: torch.device, *, tensors: int = 10, parameters: int = 10_000_000
) -> dict[str, Step]:
    """The steps of this package's subgradient optimizers beside torch's, over the same parameters
    and gradients; torch's SGD first."""
    source, side = torch.Generator().manual_seed(0), round((parameters / tensors) ** 0.5)
    shared = [
        torch.randn(side, side, generator=source).to(device).requires_grad_()
        for _ in range(tensors)
    ]
    for p in shared:
        p.grad = torch.randn(side, side, generator=source).to(device)
    kinds: dict[str, Optimizer] = {
        "SGD(foreach=True)": SGD(shared, lr=1e-3, foreach=True),
        "SignSubgradient": SignSubgradient(shared, lr=1e-3),
        "SignSubgradient(capturable=True), which does not check": SignSubgradient(
            shared, lr=1e-3, capturable=True
        ),
        "SignSubgradient(momentum=0.9)": SignSubgradient(shared, lr=1e-3, momentum=0.9),
        "NormalizedSubgradient": NormalizedSubgradient(shared, lr=1e-3),
        "Subgradient": Subgradient(shared, lr=1e-3),
        "Adam(foreach=True)": Adam(shared, lr=1e-3, foreach=True),
        "Adam(fused=True)": Adam(shared, lr=1e-3, fused=True),
    }
    return {name: optimizer.step for name, optimizer in kinds.items()}
