"""Write docs/spectral.md and docs/rule-table.md from the code: measured spectral radii, and what
the registry says of each rule.

python scripts/write_rule_tables.py
"""

from __future__ import annotations

from pathlib import Path

import torch

from saddlepoint import GameOptimizer, Rule, registry, rules
from saddlepoint.games import zero_sum
from saddlepoint.vectors import Vector

DOCS = Path(__file__).parents[1] / "docs"
H = 0.05
TIGHT = {"tol": 1e-14, "max_iter": 50}
XY = {"leader": "x", "follower": "y"}
GAMES = {
    "xy": (0.0, 1.0, 0.0),
    "xy + x²/2 − y²/2": (1.0, 1.0, -1.0),
    "−3x² − y² + 4xy": (-6.0, 4.0, -2.0),
    "3x² + y² + 4xy": (6.0, 4.0, 2.0),
}
STACKELBERG = ("follow-the-ridge", "total-gradient", "gradient-newton", "complete-newton")

# name → (rule, steps of one round, rates of x and y)
RULES: dict[str, tuple[Rule, int, tuple[float, float]]] = {
    "gradient": (rules.GradientDescent(), 1, (H, H)),
    "optimistic": (rules.Optimistic(), 1, (H, H)),
    "extragradient": (rules.Extragradient(), 1, (H, H)),
    "past-extragradient": (rules.PastExtragradient(), 1, (H, H)),
    "lookahead (k = 5), per step": (rules.Lookahead(), 5, (H, H)),
    "runge-kutta": (rules.RungeKutta(), 1, (H, H)),
    "consensus, γ = 0.1": (rules.Consensus(gamma=0.1), 1, (H, H)),
    "consensus, γ = 1": (rules.Consensus(gamma=1.0), 1, (H, H)),
    "sga, λ = 1": (rules.SymplecticGradientAdjustment(align=False), 1, (H, H)),
    "hamiltonian": (rules.Hamiltonian(), 1, (H, H)),
    "jare, γ = 1": (rules.JacobianRegularized(gamma=1.0), 1, (H, H)),
    "look-ahead, α = 0.1": (rules.LOLA(alpha=0.1, shaping=0.0), 1, (H, H)),
    "lola, α = 0.1": (rules.LOLA(alpha=0.1), 1, (H, H)),
    "cgd": (rules.CompetitiveGradient(**TIGHT), 1, (H, H)),
    "lcgd": (rules.LinearizedCompetitiveGradient(), 1, (H, H)),
    "proximal-point": (rules.ProximalPoint(**TIGHT), 1, (H, H)),
    "newton, part = own, λ = 1": (rules.Newton(damping=1.0, adapt=False, **TIGHT), 1, (H, H)),
    "newton, part = full": (rules.Newton(part="full", damping=0.0, **TIGHT), 1, (1.0, 1.0)),
    "follow-the-ridge": (rules.FollowTheRidge(**XY, **TIGHT), 1, (H, H)),
    "total-gradient": (rules.TotalGradient(**XY, **TIGHT), 1, (H, H)),
    "gradient-newton": (rules.GradientNewton(**XY, **TIGHT), 1, (H, 1.0)),
    "complete-newton": (rules.CompleteNewton(**XY, **TIGHT), 1, (1.0, 1.0)),
}
HEAD = """# Spectral radii

The factor by which one step of size h = 0.05 multiplies the distance to the critical point in the long run, measured from the code by
applying a step to basis vectors (with the past gradient as further unknowns where a rule remembers one). Below 1 converges. x minimises,
y maximises. The third game has a local minimax point at the origin, so a good method converges; the origin of the fourth is none, so a
good method leaves it. `newton, part = full` and `complete-newton` take whole steps, `gradient-newton` a whole step for y. Written by
`python scripts/write_rule_tables.py`; the formulas behind the numbers are tested in `tests/rules/test_spectral.py`.

"""


TABLE_HEAD = """# All rules

Written by `python scripts/write_rule_tables.py` from the table that `saddlepoint list rules` prints. Order 0 uses losses only, 1 gradients,
2 Jacobian products; k is the number of solver iterations, a gradient or product is a pass over one player's loss. Games says where a rule
holds: "any" is any number of players, zero-sum or not; "leader and follower" is two players in an order, zero-sum or not unless the table
says so. A rule refuses other games: by their players when the optimizer is made, by their losses in the first step. What is said of
bilinear games and local minimax points is theory for small enough steps; [the spectral radii](spectral.md) are measured. [Which one should
I use?](rules.md)

"""


def one_round(
    name: str, game: tuple[float, float, float], start: torch.Tensor, past: bool
) -> torch.Tensor:
    """Return θ, and the past gradient where there is one, after a round from ``start``."""
    rule, steps, rates = RULES[name]
    made = zero_sum(*game, start[:2].tolist())
    inner = {
        player: torch.optim.SGD(t, lr=rate)
        for (player, t), rate in zip(made.players.items(), rates, strict=True)
    }
    optimizer = GameOptimizer(inner, rule)
    if past:
        optimizer.rule_state.remember("past", Vector({"x": [start[2:3]], "y": [start[3:4]]}))
    for _ in range(steps):
        optimizer.step(made.losses)
    end = made.theta.detach()
    return (
        torch.cat([end, optimizer.rule_state.recall("past", Vector(made.players)).flatten()])
        if past
        else end
    )


def radius(name: str, game: tuple[float, float, float]) -> str:
    rule, steps, _ = RULES[name]
    if name in STACKELBERG and game[2] == 0:
        return "–"
    past = isinstance(rule, rules.Optimistic | rules.PastExtragradient)
    basis = torch.eye(4 if past else 2, dtype=torch.float64)
    M = torch.stack([one_round(name, game, start, past) for start in basis], dim=1)
    return f"{float(torch.linalg.eigvals(M).abs().max()) ** (1 / steps) + 0.0:.4f}"


def rule_table() -> str:
    """Return docs/rule-table.md as it should be."""
    rows = [
        f"| `{name}` | `{e.path.rpartition(':')[2]}` | {e.summary} |"
        f" {registry.build_recipe_rule(name).order} | {registry.load(e.path).games} | {e.cost} | {e.bilinear} | {e.minimax} | {e.paper} |"
        for name, e in registry.RULES.items()
    ]
    head = (
        "| key | class | what it is | order | games | cost of a step, two players "
        "| bilinear game x·s·y, step h | local minimax points | paper |"
    )
    return TABLE_HEAD + "\n".join([head, "|---" * 9 + "|", *rows]) + "\n"


def spectral() -> str:
    """Return docs/spectral.md as it should be."""
    rows = [
        f"| {name} | {' | '.join(radius(name, game) for game in GAMES.values())} |"
        for name in RULES
    ]
    return (
        HEAD
        + "\n".join([f"| rule | {' | '.join(GAMES)} |", "|---" * (len(GAMES) + 1) + "|", *rows])
        + "\n"
    )


PAGES = {"spectral.md": spectral, "rule-table.md": rule_table}

if __name__ == "__main__":
    for name, text in PAGES.items():
        (DOCS / name).write_text(text())
