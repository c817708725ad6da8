import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import saddlepoint as sp
from saddlepoint.diagnostics import History, Series, dominant_oscillation
from saddlepoint.diagnostics.checks import CYCLE_PROMINENCE, CYCLE_SHARE, check_oscillation
from saddlepoint.diagnostics.oscillation import BANDWIDTH, LEAST_POINTS
from saddlepoint.games import bilinear, dirac_gan
from saddlepoint.rules import Extragradient, GradientDescent


def series(values, spacing=1):
    return Series(spacing * np.arange(len(values)), np.asarray(values, dtype=float))


def counts(found):
    """Whether the check counts it as an oscillation."""
    return found is not None and found.share >= CYCLE_SHARE and found.prominence >= CYCLE_PROMINENCE


class TestSines:
    @pytest.mark.parametrize("cycles", [6, 7, 10, 25, 50])
    @pytest.mark.parametrize(
        ("offset", "slope", "amplitude", "spacing"),
        [(0, 0, 1, 1), (1e3, 0.5, 0.01, 5), (-3, -1e2, 40, 20)],
    )
    def test_period_and_amplitude_whatever_the_line_below(
        self, cycles, offset, slope, amplitude, spacing
    ):
        t = np.arange(400)
        found = dominant_oscillation(
            series(offset + slope * t + amplitude * np.cos(2 * np.pi * cycles * t / 400), spacing)
        )
        assert found.period == pytest.approx(400 / cycles * spacing, rel=1e-12)
        # the line takes 1/cycles of a sample of it
        assert found.amplitude == pytest.approx(amplitude, rel=1e-2)
        assert found.share == pytest.approx(1.0, abs=1e-2)
        assert counts(found)

    @given(cycles=st.floats(6.5, 45), phase=st.floats(0, 2 * math.pi))
    def test_any_frequency_and_phase(self, cycles, phase):
        """The peak is the nearest integer to the frequency, give or take what leaks from −f; its
        quarter on each side has the energy."""
        t = np.arange(400)
        found = dominant_oscillation(series(np.cos(2 * np.pi * cycles * t / 400 + phase)))
        assert abs(400 / found.period - cycles) <= 0.6
        assert found.amplitude == pytest.approx(1.0, abs=0.1)

    @pytest.mark.parametrize("noise", [0.1, 0.5])
    def test_noise_takes_its_share(self, noise):
        """A sine of amplitude 1 has the variance ½, so its share is ½ / (½ + σ²), and a part of the
        noise's own comes with it."""
        t, draws = np.arange(1000), np.random.default_rng(0)
        found = dominant_oscillation(
            series(np.sin(2 * np.pi * 20 * t / 1000) + noise * draws.standard_normal(1000))
        )
        assert found.period == 50
        assert found.share == pytest.approx(0.5 / (0.5 + noise**2), abs=0.04)

    def test_the_stronger_of_two(self):
        t = np.arange(400)
        found = dominant_oscillation(
            series(2 * np.cos(2 * np.pi * 40 * t / 400) + np.cos(2 * np.pi * 10 * t / 400))
        )
        assert found.period == 10
        assert found.share == pytest.approx(4 / 5, abs=1e-2)
        assert found.prominence == pytest.approx(4.0, rel=5e-2)

    def test_two_slow_waves_are_a_trend_and_quick_ones_noise(self):
        t = np.arange(400)
        for cycles in (1, 2, 3, 90, 199):
            assert not counts(dominant_oscillation(series(np.cos(2 * np.pi * cycles * t / 400))))

    def test_a_cycle_that_is_not_exactly_periodic(self):
        """The phase makes a random walk: the line is as wide as a tenth of its frequency, and still
        counts as one."""
        draws = np.random.default_rng(0)
        phase = np.cumsum(2 * np.pi / 20 * (1 + 0.3 * draws.standard_normal(600)))
        found = dominant_oscillation(series(np.sin(phase)))
        assert found.period == pytest.approx(20, rel=0.1)
        assert counts(found)


class TestNothingToFind:
    @pytest.mark.parametrize(
        "values",
        [
            [],
            [1.0],
            np.sin(np.arange(LEAST_POINTS - 1)),
            np.zeros(200),
            np.full(200, 1e6),
            np.arange(200) * 0.1,
        ],
    )
    def test_short_constant_and_straight(self, values):
        assert dominant_oscillation(series(values)) is None

    def test_from_64_points_on(self):
        assert dominant_oscillation(series(np.sin(np.arange(LEAST_POINTS)))) is not None

    @pytest.mark.parametrize("n", [LEAST_POINTS, 200, 600])
    @pytest.mark.parametrize("kind", ["white", "walk"])
    def test_noise_stays_below_the_thresholds(self, kind, n):
        """One series may pass by chance, of 64 points once in thirty; two players would have to
        pass together, with the same period.

        200 draws with a chance of p each: more than 200 p + 3 √(200 p) are drawn less than once in
        a hundred.
        """
        passed, together, last = 0, 0, None
        for seed in range(200):
            values = np.random.default_rng(seed).standard_normal(n)
            found = dominant_oscillation(series(np.cumsum(values) if kind == "walk" else values))
            passed += counts(found)
            together += (
                counts(found) and counts(last) and abs(found.period / last.period - 1) <= BANDWIDTH
            )
            last = found
        assert passed <= 200 / 30 + 3 * math.sqrt(200 / 30)
        assert together <= 200 / 30**2 + 3 * math.sqrt(200 / 30**2)

    @given(st.lists(st.floats(-1e38, 1e38), min_size=LEAST_POINTS, max_size=150))
    def test_shares_are_shares(self, values):
        found = dominant_oscillation(series(values))
        if found is not None:
            assert 0 <= found.share <= 1
            assert found.prominence >= 0
            assert 8 - 1e-9 <= found.period <= len(values) / 6 + 1e-9


def play(game, rule, rate, steps, *, alternate=False, every=1):
    """The history of a training: losses and projections of both players, every few steps."""
    # the discriminator's is the second of x and y, the first of the Dirac-GAN
    names = list(game.players)
    roles = (
        {"x": "generator", "y": "discriminator"}
        if names == ["x", "y"]
        else {name: name for name in names}
    )
    optimizer = sp.GameOptimizer(
        {player: torch.optim.SGD(own, lr=rate) for player, own in game.players.items()}, rule
    )
    trace = {kind: {roles[name]: [] for name in names} for kind in ("losses", "projections")}
    for step in range(steps):
        losses = {name: float(value.detach()) for name, value in game.losses().items()}
        if step % every == 0:
            for name in names:
                trace["losses"][roles[name]].append(losses[name])
                trace["projections"][roles[name]].append(float(game.players[name][0].detach()))
        for turn in [[name] for name in names] if alternate else [names]:
            optimizer.step(
                lambda turn=turn: {
                    name: loss for name, loss in game.losses().items() if name in turn
                }
            )
    line = {"step": steps, "trace": {"steps": list(range(0, steps, every)), **trace}}
    return History(loss="minimax", lines=[line])


class TestGames:
    @pytest.mark.parametrize(("s", "rate"), [(1.0, 0.05), (2.0, 0.02)])
    def test_simultaneous_descent_on_the_bilinear_game(self, s, rate):
        """θ' = (I − hJ) θ with eigenvalues 1 ± ihs: they turn by arctan(hs) ≈ hs in a step. The
        loss s x y goes twice as fast."""
        log = play(bilinear(s), GradientDescent(), rate, 3200, every=4)
        turn = 2 * math.pi / math.atan(rate * s)
        assert turn == pytest.approx(2 * math.pi / (rate * s), rel=1e-3)
        for player in ("discriminator", "generator"):
            found = dominant_oscillation(log.trace("projections", player))
            # to half a frequency
            assert found.period == pytest.approx(turn, rel=0.5 / (1600 / turn))
            assert dominant_oscillation(log.trace("losses", player)).period == pytest.approx(
                turn / 2, rel=0.25 / (1600 / turn)
            )
            assert counts(found)
        (said,) = check_oscillation(log)
        assert said.numbers["period"] * (
            2 if "the discriminator's loss" in said.message else 1
        ) == pytest.approx(turn, rel=0.1)

    @pytest.mark.parametrize("loss", ["minimax", "non-saturating", "wasserstein"])
    def test_simultaneous_descent_on_the_dirac_gan(self, loss):
        """Near the equilibrium J has the eigenvalues ±ic, c = ½ for the logistic losses and 1 for
        Wasserstein's."""
        game, rate = dirac_gan(loss, start=(0.05, 0.05)), 0.1
        turn = 2 * math.pi / (rate * float(torch.linalg.eigvals(game.jacobian).imag.abs().max()))
        log = play(game, GradientDescent(), rate, round(14.3 * turn), every=2)
        for player in ("discriminator", "generator"):
            found = dominant_oscillation(log.trace("projections", player))
            assert found.period == pytest.approx(turn, rel=0.5 / 14)
        assert [finding.name for finding in check_oscillation(log)] == ["oscillation"]

    def test_alternating_descent_circles_where_extragradient_arrives(self):
        """Taking turns keeps the distance and turns by 2 arcsin(hs/2); extragradient's |1 − h²s² ±
        ihs| < 1 has reached 0 half-way."""
        rate = 0.5
        log = play(bilinear(1.0), GradientDescent(), rate, 800, alternate=True)
        turn = 2 * math.pi / (2 * math.asin(rate / 2))
        assert dominant_oscillation(log.trace("projections", "generator")).period == pytest.approx(
            turn, rel=0.01
        )
        assert len(check_oscillation(log)) == 1
        game = bilinear(1.0)
        assert check_oscillation(play(game, Extragradient(), rate, 800)) == []
        assert game.distance() < 1e-12


def logged(n=400, probes=(), **values):
    """A history whose traces hold ``discriminator_losses`` and so on, every fifth step; what is not
    given is zero."""
    trace = {"steps": [5 * k for k in range(n)]}
    for kind in ("losses", "projections"):
        trace[kind] = {
            player: list(values.get(f"{player}_{kind}", np.zeros(n)))
            for player in ("discriminator", "generator")
        }
    lines = [
        {"step": 5 * n, "trace": trace},
        *({"step": 5 * n, "probe": {"antisymmetric": share}} for share in probes),
    ]
    return History(loss="minimax", lines=lines)


def wave(cycles, amplitude=1.0, n=400):
    """Cycles in the second half."""
    return amplitude * np.cos(2 * np.pi * cycles * np.arange(n) / (n / 2))


class TestCheck:
    def test_the_message(self):
        log = logged(
            discriminator_losses=wave(10, 0.25),
            generator_projections=wave(10, 0.5),
            probes=[0.1, *[0.8] * 3, 0.9, None, 0.7],
        )
        (found,) = check_oscillation(log)
        assert (
            found.message
            == "The players cycle: the discriminator's loss with a period of 100 steps and an"
            " amplitude of 0.25 (100% of its variation), the generator's parameters, projected,"
            " with 100 steps and 0.5 (100%). 80% of the field's change in its own direction is"
            " rotation. Try --rule extragradient, optimistic or averaged, or smaller learning"
            " rates."
        )
        assert (found.name, found.player, found.level, found.since) == (
            "oscillation",
            "game",
            "warning",
            None,
        )
        assert found.numbers == {
            "period": pytest.approx(100),
            "amplitude": pytest.approx(0.25, rel=1e-2),
            "share": pytest.approx(1, abs=1e-2),
            "generator_period": pytest.approx(100),
            "antisymmetric": pytest.approx(0.8),
        }

    def test_without_probes_it_claims_no_rotation(self):
        (found,) = check_oscillation(
            logged(discriminator_losses=wave(10), generator_losses=wave(10))
        )
        assert "(100%). Try --rule" in found.message
        assert math.isnan(found.numbers["antisymmetric"])

    def test_it_takes_both_players(self):
        noise = np.random.default_rng(0).standard_normal(400)
        assert (
            check_oscillation(
                logged(discriminator_losses=wave(10), discriminator_projections=wave(10))
            )
            == []
        )
        assert (
            check_oscillation(logged(discriminator_losses=wave(10), generator_losses=noise)) == []
        )
        assert (
            check_oscillation(logged(discriminator_losses=noise, generator_losses=wave(10))) == []
        )

    @pytest.mark.parametrize(
        ("cycles", "together"), [(10, True), (12, True), (8, True), (14, False), (6, False)]
    )
    def test_and_one_period(self, cycles, together):
        """Periods are the same within a quarter: 200/10 against 200/8 is 20 % less, against 200/14
        40 % more."""
        assert (
            bool(
                check_oscillation(
                    logged(discriminator_losses=wave(10), generator_losses=wave(cycles))
                )
            )
            is together
        )

    def test_what_has_calmed_down_is_past(self):
        calm = np.where(np.arange(400) < 200, wave(10), 1.0)
        assert check_oscillation(logged(discriminator_losses=calm, generator_losses=calm)) == []

    def test_half_of_128_points_is_the_least(self):
        assert (
            check_oscillation(
                logged(n=126, discriminator_losses=wave(7, n=126), generator_losses=wave(7, n=126))
            )
            == []
        )
        assert (
            len(
                check_oscillation(
                    logged(
                        n=128, discriminator_losses=wave(7, n=128), generator_losses=wave(7, n=128)
                    )
                )
            )
            == 1
        )
