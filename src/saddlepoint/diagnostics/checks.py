"""Checks of a run's history: each looks for one kind of problem and returns findings.

A check is a function of a ``History``. To add one, add it to ``CHECKS``, causes before effects, and
a row to the detection benchmark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from saddlepoint.diagnostics.findings import Finding, ranked
from saddlepoint.diagnostics.gradients import GradientHealth
from saddlepoint.diagnostics.history import History, Series
from saddlepoint.diagnostics.loss_ranges import LOSS_RANGES
from saddlepoint.diagnostics.oscillation import BANDWIDTH, Oscillation, dominant_oscillation

VANISHED = 1e-3
"""A gradient below this share of its initial size has vanished; others stay within a factor 30."""

AT_CHANCE = 1e-3
"""A discriminator's loss is at chance where it differs from the chance level by less than this."""

SATURATED = 0.9
"""A discriminator is saturated where this share of its outputs lies on the flat part of a loss."""

MEMORISED = 0.7
"""The membership AUC above which the discriminator has memorised training samples.

With 256 samples on each side its standard error is 0.026 around ½.
"""

COPIES = 0.75
"""Samples are copies if they are nearer to the training set than held-out ones in this share."""

COVERED = 0.75
"""Modes are lost where less than this share of them is covered, or of what was covered before."""

DIVERSE = 0.3
"""Samples have collapsed where their diversity is below this."""

WARM_UP = 8
"""Probes, two thirds of a run at the default, before low diversity counts from the start."""

LOSS_WINDOW = 0.2
"""The share of the run, up to now, over which the median of a loss is taken."""

LEAST_LOSSES = 10
"""The fewest logged losses on which a finding is based."""

CYCLE_SHARE = 0.3
"""An oscillation explains at least this share of the variance; in noise it is a few per cent."""

CYCLE_PROMINENCE = 1.5
"""The least prominence of an oscillation; a random walk is rarely above it."""

CYCLE_AMPLITUDE = 0.01
"""The least amplitude of a loss oscillation; levels of losses are of order 1."""

_COLLAPSE_REMEDY = (
    "Try a smaller generator learning rate, R1 (problem.r1), another activation"
    " (problem.activation), or curvature (optimizer soap)."
)


def diagnose(history: History) -> list[Finding]:
    """Return the findings that hold at the end of a history, the worst first.

    Nothing is measured, so it works during and after training.

    >>> diagnose(History(loss="minimax"))
    []
    """
    found: list[Finding] = []
    for check in CHECKS:
        found += check(history)
    return ranked(found)


def check_divergence(history: History) -> list[Finding]:
    """Return an alarm if the run ended in a NaN or infinity, a warning if it was rolled back."""
    divergence = history.last.get("divergence")  # after an earlier one the run was rolled back
    if divergence:
        step = int(divergence.get("step", history.last_step + 1))
        player = str(divergence.get("player", "game"))
        parts = [f"Training diverged in step {step}.", str(divergence.get("description", ""))]
        losses = history.trace("losses", player)
        if len(losses) > 1:
            first, last = losses.values[0], losses.last
            parts.append(f"Before, the {player}'s loss went from {first:.3g} to {last:.3g}.")
        if divergence.get("place") == "data":
            parts.append("The cause is in the data, not in the networks.")
        elif divergence.get("place") == "parameter":
            parts.append(
                "The parameters were not finite before this step; start from an earlier checkpoint."
            )
        else:
            parts.append(
                "Try a smaller learning rate, a penalty on the discriminator (problem.r1), or"
                " on_divergence=roll_back."
            )
        message = " ".join(part for part in parts if part)
        numbers = {"step": float(step)}
        for name in ("share", "largest"):
            value = divergence.get(name)
            numbers[name] = math.nan if value is None else float(value)
        return [Finding("divergence", player, message, numbers, level="alarm", since=step)]

    if history.rollbacks:
        rollback, times = history.rollbacks[-1], len(history.rollbacks)
        step, factor = int(rollback.get("failed_step", 0)), rollback.get("lr_factor")
        factor = math.nan if factor is None else float(factor)
        origin = (rollback.get("divergence") or {}).get("description", "")
        message = (
            f"Training diverged {times} time{'s' if times > 1 else ''}, last in step {step}, and"
            f" continued with learning rates × {factor:g}. {origin}{' ' if origin else ''}Try these"
            " learning rates from the start."
        )
        numbers = {"rollbacks": float(times), "lr_factor": factor}
        return [Finding("rolled-back", "game", message, numbers, since=step)]
    return []


def check_gradients(history: History) -> list[Finding]:
    """Return a finding for every player whose gradient has vanished at the latest probe.

    Players that the rule moves without their gradients are left out. Where all gradients have
    vanished and the discriminator's loss is at chance, the game has reached an equilibrium: one
    note.
    """
    probes = []
    for step, probe in history.probes():
        if (probe.get("gradients") or {}).get("norms"):
            probes.append((step, probe))
    if not probes:
        return []
    last_step, last = probes[-1]
    active, initial, now = history.moved_by_gradient(), _health(probes[0][1]), _health(last)
    vanished = vanishing_gradients(initial, now, last.get("saturated"))
    found = [finding for finding in vanished if finding.player in active]

    if len(found) == len(active) > 1 and all(finding.numbers["norm"] > 0 for finding in found):
        chance = LOSS_RANGES[history.loss]["discriminator"].chance
        if abs(history.series("losses", "discriminator").last - chance) < AT_CHANCE:
            shares = {}
            for player, norm in now.norms.items():
                if initial.norms.get(player):
                    shares[player] = norm / initial.norms[player]
            sizes = " and ".join(f"{share:.0e} of the {p}'s" for p, share in shares.items())
            message = (
                f"The game is at an equilibrium: the gradients are {sizes} initial size, and the"
                " discriminator's loss is at chance."
            )
            numbers = {"norm": max(now.norms.values()), **shares}
            return [Finding("equilibrium", "game", message, numbers, level="note")]

    dated = []
    for finding in found:
        since = last_step
        for step, probe in reversed(probes):
            then = vanishing_gradients(initial, _health(probe), probe.get("saturated"))
            if finding.key not in {other.key for other in then}:
                break
            since = step
        dated.append(replace(finding, since=since))
    return dated


def _health(probe: Mapping[str, Any]) -> GradientHealth:
    logged = probe["gradients"]
    norms = {p: math.nan if norm is None else norm for p, norm in logged["norms"].items()}
    rest = {key: logged.get(key) or {} for key in ("layers", "zeros", "signal_to_noise")}
    return GradientHealth(norms=norms, **rest)


def vanishing_gradients(
    initial: GradientHealth, now: GradientHealth, saturated: Mapping[str, float] | None = None
) -> list[Finding]:
    """Return a finding for every player whose gradient has vanished.

    A gradient has vanished below 1e-3 of its initial size, or if it has been exactly zero from the
    beginning.

    Args:
        initial: the gradients at the start of training.
        now: the gradients now.
        saturated: player → share of the discriminator's outputs on the flat part of its loss, from
            ``saturation``, to explain the finding.

    >>> def health(norm):
    ...     return GradientHealth({"generator": norm}, {}, {"generator": 0.0}, {})
    >>> vanishing_gradients(health(0.5), health(0.1))
    []
    >>> (found,) = vanishing_gradients(health(0.5), health(5e-10), {"generator": 1.0})
    >>> print(found.message[:58])
    The generator's gradient is 1e-09 of its initial size (5e-
    """
    found = []
    for player, norm in now.norms.items():
        first, flat = initial.norms.get(player, math.nan), (saturated or {}).get(player)
        if now.zeros.get(player) == 1 and first == 0:
            message = (
                f"The {player}'s gradient is exactly zero in every entry: its output passes through"
                " an operation that autograd cannot differentiate, such as a threshold or a sample,"
                " or every unit on the way is dead. Try a straight-through or Gumbel estimator, or"
                " a rule of order 0 (--rule per-player)."
            )
            numbers = {"norm": 0.0, "zeros": 1.0}
            found.append(Finding("zero-gradient", player, message, numbers, level="alarm"))
        elif norm < VANISHED * first:
            numbers = {"norm": norm, "initial_norm": first}
            size = (
                f"The {player}'s gradient is {norm / first:.0e} of its initial size ({norm:.1g}, at"
                f" first {first:.1g})"
            )
            if norm == 0:
                size = (
                    f"The {player}'s gradient has become exactly zero in every entry (at first"
                    f" {first:.1g})"
                )
            why, remedy = "", "--optimizer sign or normalized, or a smaller learning rate"
            if flat is not None:
                numbers["saturated"] = flat
                why = (
                    f", though only {flat:.0%} of the discriminator's outputs lie where its loss is"
                    " flat"
                )
                if flat >= SATURATED:
                    why = (
                        f": the discriminator has saturated, {flat:.0%} of its outputs lie where"
                        f" the {player}'s loss is flat"
                    )
                    remedy = (
                        "a smaller discriminator learning rate, R1 (problem.r1), the non-saturating"
                        " loss, or --optimizer sign"
                    )
            message = f"{size}{why}. Try {remedy}."
            found.append(Finding("vanishing-gradient", player, message, numbers, level="alarm"))
    return found


def check_overfitting(history: History) -> list[Finding]:
    """Return a finding if the discriminator separates training from held-out samples.

    It must do so at the last two probes.
    """
    series = history.series("probe", "membership_auc")
    if len(series) < 2 or not (series.values[-2:] > MEMORISED).all():
        return []
    since = series.since(series.values > MEMORISED)
    message = (
        f"The discriminator ranks a training sample above a held-out one in {series.last:.0%} of"
        f" pairs (50 % is healthy): it has memorised training samples since step {since}. Try more"
        " data or augmentation, R1 (problem.r1), a smaller discriminator, or the best checkpoint"
        " (saddlepoint best)."
    )
    numbers = {"membership_auc": series.last}
    return [Finding("overfitting", "discriminator", message, numbers, since=since)]


def check_copying(history: History) -> list[Finding]:
    """Return a finding if generated samples are nearer to the training set than held-out ones."""
    found = []
    for name in history.metrics():
        if not name.startswith("ema/copying"):
            continue
        series = history.series("metrics", name)
        if len(series) and series.last > COPIES:
            since = series.since(series.values > COPIES)
            message = (
                f"In {series.last:.0%} of pairs a generated sample lies nearer to the training set"
                f" than a held-out one (50 % is healthy): the generator copies training samples"
                f" since step {since}. Try more data, or an earlier checkpoint (saddlepoint best)."
            )
            numbers = {"copying": series.last}
            found.append(
                Finding("copying", "generator", message, numbers, level="alarm", since=since)
            )
    return found


def check_mode_loss(history: History) -> list[Finding]:
    """Return a finding if the averaged generator covers less than ¾ of the modes or classes.

    It must have lost a quarter of what it covered, or have been evaluated four times.
    """
    if history.coverage is None:
        return []
    name, full = history.coverage
    series = history.series("metrics", f"ema/{name}")
    if len(series) < 2 or series.last >= COVERED * full:
        return []
    best = int(np.argmax(series.values))
    most, since = float(series.values[best]), series.since(series.values < COVERED * full)
    if series.values[best] - series.last >= (1 - COVERED) * full:
        course = (
            f", down from {most:.3g} at step {series.steps[best]}: mode collapse since step {since}"
        )
    elif len(series) >= 4:
        course = f", and in {len(series)} evaluations never more than {most:.3g}"
    else:
        return []
    message = (
        f"The generator covers {series.last:.3g} of {full:g} {name.replace('-', ' ')}{course}."
        f" {_COLLAPSE_REMEDY}"
    )
    numbers = {name: series.last, "all": full, "most": most}
    return [Finding("mode-loss", "generator", message, numbers, level="alarm", since=since)]


def check_diversity(history: History) -> list[Finding]:
    """Return a finding if the diversity of generated samples is below 0.3 at the last two probes.

    That of an untrained generator is low too; so it must have been higher before, or there must
    have been eight probes.
    """
    series = history.series("probe", "diversity")
    if len(series) < 3 or not (series.values[-2:] < DIVERSE).all():
        return []
    most, since = float(series.values.max()), series.since(series.values < DIVERSE)
    if most < DIVERSE and len(series) < WARM_UP:
        return []
    course = f"collapsed since step {since}" if most >= DIVERSE else "not learnt to vary them"
    message = (
        f"Generated samples lie {series.last:.2g} times as far apart as real ones (at most"
        f" {most:.2g} so far): the generator has {course}. {_COLLAPSE_REMEDY}"
    )
    numbers = {"diversity": series.last, "most": most}
    return [Finding("low-diversity", "generator", message, numbers, level="alarm", since=since)]


def check_losses(history: History) -> list[Finding]:
    """Return a finding where a player's median loss over the last fifth is outside its range.

    One finding names the player that wins, with the losses of both players if both show it.
    """
    # interpretation → [(player, loss, description, since)]
    outside: dict[str, list[tuple[str, float, str, int | None]]] = {}
    for player, healthy in LOSS_RANGES[history.loss].items():
        series = history.series("losses", player)
        window = series.values[series.steps >= history.last_step * (1 - LOSS_WINDOW)]
        if len(series) < LEAST_LOSSES or not len(window):
            continue
        value = float(np.median(window))
        if value < healthy.low:
            edge, since = f"below {healthy.low:.2g}", series.since(series.values < healthy.low)
        elif value > healthy.high:
            edge, since = f"above {healthy.high:.2g}", series.since(series.values > healthy.high)
        else:
            continue
        if player == "discriminator" and value > healthy.high:
            meaning = (
                "It is worse than no discriminator: it lags behind or cycles. Try a smaller"
                " generator learning rate, or --rule extragradient."
            )
        elif (player == "discriminator") == (value < healthy.low):
            meaning = (
                "The discriminator wins. Try a smaller discriminator learning rate, R1"
                " (problem.r1), or fewer discriminator steps."
            )
        else:
            meaning = (
                "The generator wins: the discriminator does not follow. Try a larger discriminator"
                " learning rate or more discriminator steps."
            )
        described = f"the {player}'s is {value:.2g}, {edge} (chance: {healthy.chance:.2g})"
        outside.setdefault(meaning, []).append((player, value, described, since))

    found = []
    for meaning, players in outside.items():
        losses = " and ".join(described for _, _, described, _ in players)
        message = f"Of the {history.loss} losses {losses}. {meaning}"
        numbers = {f"{player} loss": value for player, value, _, _ in players}
        began = min((since for *_, since in players if since is not None), default=None)
        found.append(Finding("loss-out-of-range", players[0][0], message, numbers, since=began))
    return found


def check_oscillation(history: History) -> list[Finding]:
    """Return a finding if both players oscillate with the same period in the second half.

    The losses or the projected parameters are taken. One player alone may oscillate by chance or
    follow its optimizer; players that follow each other do so together.
    """
    pairs = []
    ours, theirs = (_oscillations(history, player) for player in ("discriminator", "generator"))
    for our_kind, our in ours:
        for their_kind, their in theirs:
            if abs(our.period / their.period - 1) <= BANDWIDTH:
                pairs.append((our.share + their.share, our_kind, our, their_kind, their))
    if not pairs:
        return []
    _, d_kind, d, g_kind, g = max(pairs, key=lambda pair: pair[0])

    rotation = history.series("probe", "antisymmetric")
    share, turning = math.nan, ""
    if len(rotation):
        share = float(np.median(rotation.values[-5:]))
        turning = f" {share:.0%} of the field's change in its own direction is rotation."
    names = {"losses": "loss", "projections": "parameters, projected,"}
    message = (
        f"The players cycle: the discriminator's {names[d_kind]} with a period of {d.period:.0f}"
        f" steps and an amplitude of {d.amplitude:.2g} ({d.share:.0%} of its variation), the"
        f" generator's {names[g_kind]} with {g.period:.0f} steps and {g.amplitude:.2g}"
        f" ({g.share:.0%}).{turning} Try --rule extragradient, optimistic or averaged, or smaller"
        " learning rates."
    )
    numbers = {
        "period": d.period,
        "amplitude": d.amplitude,
        "share": d.share,
        "generator_period": g.period,
        "antisymmetric": share,
    }
    return [Finding("oscillation", "game", message, numbers)]


def _oscillations(history: History, player: str) -> list[tuple[str, Oscillation]]:
    """Return the significant oscillations of a player, in the second half of its trace."""
    found = []
    for kind in ("losses", "projections"):
        trace = history.trace(kind, player)
        half = len(trace) // 2
        o = dominant_oscillation(Series(trace.steps[half:], trace.values[half:]))
        if o is None or o.share < CYCLE_SHARE or o.prominence < CYCLE_PROMINENCE:
            continue
        if kind == "projections" or o.amplitude >= CYCLE_AMPLITUDE:
            found.append((kind, o))
    return found


CHECKS: tuple[Callable[[History], list[Finding]], ...] = (
    check_divergence,
    check_gradients,
    check_overfitting,
    check_copying,
    check_mode_loss,
    check_diversity,
    check_losses,
    check_oscillation,
)
"""All checks, causes before effects."""
