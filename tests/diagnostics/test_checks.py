import json
import math
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import saddlepoint as sp
from saddlepoint.diagnostics import CHECKS, LOSS_RANGES, GradientHealth, History, Probe, diagnose
from saddlepoint.diagnostics.checks import (
    check_copying,
    check_divergence,
    check_diversity,
    check_gradients,
    check_losses,
    check_mode_loss,
    check_overfitting,
)
from saddlepoint.games import GAN_LOSSES
from saddlepoint.io.atomic import json_line

PLAYERS = ("discriminator", "generator")


def probe(generator=0.5, *, zeros=0.0, saturated=0.0, membership_auc=0.5, diversity=1.0):
    gradients = GradientHealth(
        norms={"discriminator": 1.0, "generator": generator},
        layers={player: {"0.weight": 1.0} for player in PLAYERS},
        zeros={"discriminator": 0.0, "generator": zeros},
        signal_to_noise=dict.fromkeys(PLAYERS, 2.0),
    )
    return asdict(
        Probe(
            gradients=gradients,
            saturated=dict.fromkeys(PLAYERS, saturated),
            accuracy=0.75,
            membership_auc=membership_auc,
            antisymmetric=0.3,
            update_cosine=dict.fromkeys(PLAYERS, 0.9),
            diversity=diversity,
            unmeasured={},
        )
    )


MOVED = {"step": 0, "gradient_norms": {"discriminator": 1.0, "generator": 1.0}}


def history(lines, loss="minimax", coverage=("modes", 8.0)):
    return History(loss=loss, coverage=coverage, lines=lines)


def probed(*probes, every=100):
    return history(
        [MOVED, *({"step": every * k, "probe": found} for k, found in enumerate(probes))]
    )


def covered(*values, name="modes", full=8.0):
    return history(
        [
            {"step": 100 * (k + 1), "metrics": {f"ema/{name}": value}}
            for k, value in enumerate(values)
        ],
        coverage=(name, full),
    )


def lost(player, *values, loss="minimax"):
    return history(
        [{"step": 10 * (k + 1), "losses": {player: value}} for k, value in enumerate(values)], loss
    )


def rested(loss, generator=1e-9):
    """A run whose gradients have all vanished, at a discriminator's loss."""
    last = probe(generator)
    last["gradients"]["norms"]["discriminator"] = 1e-9
    return history(
        [
            MOVED,
            {"step": 0, "probe": probe()},
            {"step": 100, "losses": {"discriminator": loss}, "probe": last},
        ]
    )


class TestEquilibrium:
    def test_gradients_that_vanish_at_the_loss_of_chance_are_no_alarm(self):
        (finding,) = check_gradients(rested(2 * math.log(2)))
        assert (finding.name, finding.level) == ("equilibrium", "note")
        assert finding.message.startswith(
            "The game is at an equilibrium: the gradients are 1e-09 of the discriminator's and"
            " 2e-09 of the generator's"
        )

    def test_vanished_gradients_elsewhere_are_an_alarm(self):
        assert {finding.name for finding in check_gradients(rested(0.01))} == {"vanishing-gradient"}
        found = check_gradients(rested(2 * math.log(2) + 0.01))
        assert {finding.player for finding in found} == set(PLAYERS)

    def test_gradients_that_are_exactly_zero_are_an_alarm_anywhere(self):
        found = check_gradients(rested(2 * math.log(2), generator=0.0))
        assert {finding.level for finding in found} == {"alarm"}


class TestLossRanges:
    @pytest.mark.parametrize("loss", list(GAN_LOSSES))
    def test_chance_is_the_loss_of_a_discriminator_that_says_nothing(self, loss):
        zero = torch.zeros(5, 1, dtype=torch.float64)
        discriminator_loss, generator_loss = GAN_LOSSES[loss]
        at_zero = {
            "discriminator": discriminator_loss(zero, zero),
            "generator": generator_loss(zero),
        }
        for player, terms in at_zero.items():
            values = terms.values() if isinstance(terms, dict) else [terms]
            healthy = LOSS_RANGES[loss][player]
            assert float(sum(values)) == pytest.approx(healthy.chance, abs=1e-12)
            assert healthy.low < healthy.chance < healthy.high

    def test_every_loss_has_one(self):
        assert set(LOSS_RANGES) == set(GAN_LOSSES)


class TestLosses:
    def test_a_discriminator_that_wins(self):
        (found,) = check_losses(lost("discriminator", *[1.0] * 16, *[0.05] * 4))
        assert (
            found.message
            == "Of the minimax losses the discriminator's is 0.05, below 0.1 (chance: 1.4). The"
            " discriminator wins. Try a smaller discriminator learning rate, R1 (problem.r1), or"
            " fewer discriminator steps."
        )
        assert (found.key, found.level, found.since) == (
            "loss-out-of-range discriminator",
            "warning",
            170,
        )
        assert found.numbers == {"discriminator loss": 0.05}

    def test_both_losses_may_show_it(self):
        lines = [
            {
                "step": 10 * k,
                "losses": {
                    "discriminator": 0.05 if k > 2 else 1.0,
                    "generator": -0.01 if k > 4 else -0.6,
                },
            }
            for k in range(1, 21)
        ]
        (found,) = check_losses(history(lines))
        assert found.message.startswith(
            "Of the minimax losses the discriminator's is 0.05, below 0.1 (chance: 1.4) and the"
            " generator's is -0.01, above -0.02 (chance: -0.69). The discriminator wins. Try"
        )
        assert (found.key, found.since) == ("loss-out-of-range discriminator", 30)
        assert found.numbers == {"discriminator loss": 0.05, "generator loss": -0.01}
        for line in lines:
            line["losses"] = {"discriminator": 0.05, "generator": -2.5}
        # they contradict each other
        assert [said.player for said in check_losses(history(lines))] == [
            "discriminator",
            "generator",
        ]

    @pytest.mark.parametrize(
        ("loss", "player", "value", "says"),
        [
            (
                "minimax",
                "discriminator",
                1.7,
                r"above 1\.6 \(chance: 1\.4\)\. It is worse than no discriminator: it lags behind",
            ),
            (
                "minimax",
                "generator",
                -2.5,
                (
                    r"below -2 \(chance: -0\.69\)\. The generator wins: the discriminator does not"
                    r" follow. Try a larger"
                ),
            ),
            ("minimax", "generator", -0.01, r"above -0\.02 \(.*\)\. The discriminator wins"),
            ("non-saturating", "generator", 7.0, r"above 6 \(.*\)\. The discriminator wins"),
            (
                "non-saturating",
                "generator",
                0.05,
                r"below 0\.1 \(chance: 0\.69\)\. The generator wins",
            ),
            (
                "hinge",
                "discriminator",
                2.5,
                r"above 2\.2 \(chance: 2\)\. It is worse than no discriminator",
            ),
            (
                "wasserstein",
                "discriminator",
                0.2,
                r"above 0\.1 \(chance: 0\)\. It is worse than no discriminator",
            ),
        ],
    )
    def test_who_wins(self, loss, player, value, says):
        (found,) = check_losses(lost(player, *[value] * 10, loss=loss))
        assert re.search(says, found.message)
        assert (found.player, found.since) == (player, 10)

    @pytest.mark.parametrize(
        ("loss", "player"), [(loss, player) for loss in LOSS_RANGES for player in PLAYERS]
    )
    def test_the_edges_are_healthy(self, loss, player):
        healthy = LOSS_RANGES[loss][player]
        for edge, beyond in ((healthy.low, -math.inf), (healthy.high, math.inf)):
            inside, outside = (
                (edge, math.nextafter(edge, beyond))
                if math.isfinite(edge)
                else (math.copysign(1e30, edge), math.nan)
            )
            assert check_losses(lost(player, *[inside] * 10, loss=loss)) == []
            assert len(check_losses(lost(player, *[outside] * 10, loss=loss))) == math.isfinite(
                edge
            )

    def test_the_median_of_the_last_fifth(self):
        healthy, bad = [1.0] * 80, [0.05] * 20
        assert check_losses(lost("discriminator", *bad, *healthy)) == []
        assert check_losses(lost("discriminator", *healthy, *bad[:10], *[1.0] * 10)) == []
        (found,) = check_losses(lost("discriminator", *healthy, *bad[:-1], 1.0))
        assert found.since is None  # not at this very moment

    def test_nine_losses_are_too_few(self):
        assert check_losses(lost("discriminator", *[0.05] * 9)) == []
        assert len(check_losses(lost("discriminator", *[0.05] * 10))) == 1

    def test_losses_that_are_no_longer_logged_are_ignored(self):
        log = lost("discriminator", *[0.05] * 10)
        log.add({"step": 1000})
        assert check_losses(log) == []


class TestGradients:
    def test_since_when(self):
        log = probed(
            probe(0.5), probe(0.5), probe(4e-4, saturated=0.95), probe(5e-10, saturated=1.0)
        )
        (found,) = check_gradients(log)
        assert (
            found.message
            == "The generator's gradient is 1e-09 of its initial size (5e-10, at first 0.5): the"
            " discriminator has saturated, 100% of its outputs lie where the generator's loss is"
            " flat. Try a smaller discriminator learning rate, R1 (problem.r1), the non-saturating"
            " loss, or --optimizer sign."
        )
        assert (found.key, found.level, found.since) == (
            "vanishing-gradient generator",
            "alarm",
            200,
        )

    def test_an_earlier_vanished_gradient_does_not_count(self):
        assert check_gradients(probed(probe(0.5), probe(1e-9), probe(0.5))) == []
        (found,) = check_gradients(probed(probe(0.5), probe(1e-9), probe(0.5), probe(1e-9)))
        assert found.since == 300

    def test_a_thousandth(self):
        assert check_gradients(probed(probe(1.0), probe(1e-3))) == []
        assert len(check_gradients(probed(probe(1.0), probe(math.nextafter(1e-3, 0))))) == 1

    def test_nine_tenths_are_saturated(self):
        (found,) = check_gradients(probed(probe(1.0), probe(1e-5, saturated=0.9)))
        assert "the discriminator has saturated, 90% of its outputs" in found.message
        (found,) = check_gradients(probed(probe(1.0), probe(1e-5, saturated=0.89)))
        assert (
            ", though only 89% of the discriminator's outputs lie where its loss is flat. Try"
            in found.message
        )

    def test_exactly_zero(self):
        (found,) = check_gradients(probed(probe(0.0, zeros=1.0), probe(0.0, zeros=1.0)))
        assert (
            found.message
            == "The generator's gradient is exactly zero in every entry: its output passes"
            " through an operation that autograd cannot differentiate, such as a threshold or a"
            " sample, or every unit on the way is dead. Try a straight-through or Gumbel estimator,"
            " or a rule of order 0 (--rule per-player)."
        )
        assert (found.key, found.since) == ("zero-gradient generator", 0)

    def test_a_gradient_that_has_become_zero_had_been_there(self):
        (found,) = check_gradients(probed(probe(0.5), probe(0.0, zeros=1.0, saturated=0.5)))
        assert (
            found.message
            == "The generator's gradient has become exactly zero in every entry (at first 0.5),"
            " though only 50% of the discriminator's outputs lie where its loss is flat. Try"
            " --optimizer sign or normalized, or a smaller learning rate."
        )
        assert (found.key, found.since) == ("vanishing-gradient generator", 100)

    def test_a_rule_without_gradients_misses_none(self):
        log = history(
            [{"step": 0, "losses": {"generator": 1.0}}, {"step": 0, "probe": probe(0.0, zeros=1.0)}]
        )
        assert check_gradients(log) == []


REMEDY = (
    "Try a smaller generator learning rate, R1 (problem.r1), another activation"
    " (problem.activation), or curvature (optimizer soap)."
)


class TestModeLoss:
    @pytest.mark.parametrize(
        ("values", "says", "since"),
        [
            (
                (2, 7, 8, 4),
                "4 of 8 modes, down from 8 at step 300: mode collapse since step 400.",
                400,
            ),
            ((8, 3), "3 of 8 modes, down from 8 at step 100: mode collapse since step 200.", 200),
            ((1, 2, 3, 3), "3 of 8 modes, and in 4 evaluations never more than 3.", 100),
            ((1, 5, 3, 4), "4 of 8 modes, and in 4 evaluations never more than 5.", 100),
        ],
    )
    def test_the_message(self, values, says, since):
        (found,) = check_mode_loss(covered(*values))
        assert found.message == f"The generator covers {says} {REMEDY}"
        assert (found.key, found.level, found.since) == ("mode-loss generator", "alarm", since)
        assert found.numbers == {"modes": float(values[-1]), "all": 8.0, "most": float(max(values))}

    def test_shares(self):
        (found,) = check_mode_loss(covered(0.9, 0.8, 0.6, name="recall", full=1.0))
        assert found.message.startswith(
            "The generator covers 0.6 of 1 recall, down from 0.9 at step 100: mode collapse since"
            " step 300. "
        )

    def test_three_quarters_are_enough(self):
        assert check_mode_loss(covered(8, 8, 8, 6)) == []
        assert len(check_mode_loss(covered(8, 8, 8, 5.99))) == 1

    def test_a_generator_may_cover_few_modes_at_first(self):
        assert check_mode_loss(covered(1, 2, 3)) == []  # three evaluations, and growing
        assert check_mode_loss(covered(1)) == []
        assert check_mode_loss(covered(6, 5, 4.5)) == []  # 1.5 of 8 are no quarter
        assert len(check_mode_loss(covered(6, 5, 4))) == 1

    def test_problems_that_count_no_modes(self):
        assert (
            check_mode_loss(
                history(
                    [{"step": k, "metrics": {"ema/modes": 1.0}} for k in range(5)], coverage=None
                )
            )
            == []
        )


class TestDiversity:
    def test_the_message(self):
        (found,) = check_diversity(
            probed(*(probe(diversity=d) for d in (0.1, 0.9, 0.8, 0.2, 0.05)))
        )
        assert found.message == (
            "Generated samples lie 0.05 times as far apart as real ones (at most 0.9 so far): the"
            " generator has collapsed since step 300. " + REMEDY
        )
        assert (found.key, found.level, found.since) == ("low-diversity generator", "alarm", 300)
        assert found.numbers == {"diversity": 0.05, "most": 0.9}

    @pytest.mark.parametrize(
        "values",
        [
            (0.9, 0.9, 0.2, 0.3),  # 0.3 is enough
            (0.9, 0.9, 0.9, 0.1),  # once is chance
            (0.9, 0.1),  # two probes are too few
            (0.1, 0.1, 0.9, 0.9),
        ],
    )
    def test_healthy(self, values):
        assert check_diversity(probed(*(probe(diversity=d) for d in values))) == []

    def test_diversity_that_was_always_low_counts_after_eight_probes(self):
        assert check_diversity(probed(*(probe(diversity=0.1) for _ in range(7)))) == []
        (found,) = check_diversity(probed(*(probe(diversity=0.1) for _ in range(8))))
        assert found.message.startswith(
            "Generated samples lie 0.1 times as far apart as real ones (at most 0.1 so far): the"
            " generator has not learnt to vary them. Try"
        )
        assert found.since == 0

    def test_before_the_first_step(self):
        assert check_diversity(history([{"step": 0, "probe": probe(diversity=0.0)}])) == []


class TestOverfitting:
    def test_overfitting(self):
        (found,) = check_overfitting(
            probed(*(probe(membership_auc=m) for m in (0.5, 0.9, 0.6, 0.71, 0.8)))
        )
        assert (
            found.message
            == "The discriminator ranks a training sample above a held-out one in 80% of pairs (50"
            " % is healthy): it has memorised training samples since step 300. Try more data or"
            " augmentation, R1 (problem.r1), a smaller discriminator, or the best checkpoint"
            " (saddlepoint best)."
        )
        assert (found.key, found.level, found.since) == (
            "overfitting discriminator",
            "warning",
            300,
        )

    @pytest.mark.parametrize(
        "values", [(0.9,), (0.9, 0.7), (0.7, 0.9), (0.9, 0.9, 0.5), (None, None, None), (None, 0.9)]
    )
    def test_no_finding_below_the_threshold(self, values):
        assert check_overfitting(probed(*(probe(membership_auc=m) for m in values))) == []

    def test_copying(self):
        log = history(
            [
                {"step": 100 * k, "metrics": {"ema/copying": value, "copying": 1.0}}
                for k, value in enumerate([0.5, 0.8, 0.9])
            ]
        )
        (found,) = check_copying(log)
        assert (
            found.message
            == "In 90% of pairs a generated sample lies nearer to the training set than a held-out"
            " one (50 % is healthy): the generator copies training samples since step 100. Try more"
            " data, or an earlier checkpoint (saddlepoint best)."
        )
        assert (found.key, found.level, found.since) == ("copying generator", "alarm", 100)

    def test_copying_less_than_three_quarters(self):
        assert (
            check_copying(history([{"step": 1, "metrics": {"ema/copying": 0.75, "copying": 1.0}}]))
            == []
        )
        assert (
            check_copying(
                history(
                    [
                        {"step": 1, "metrics": {"ema/copying": 0.9}},
                        {"step": 2, "metrics": {"ema/copying": 0.4}},
                    ]
                )
            )
            == []
        )


def failed(step, place="output", **options):
    what = {
        "step": step,
        "message": "…",
        "place": place,
        "player": "generator",
        "tensor": "2 (Linear)",
        "share": 0.25,
        "largest": 3e38,
    }
    return {
        "step": step - 1,
        "divergence": {**what, "description": "The first non-finite tensor is here.", **options},
    }


def rolled_back(step, failed_step, factor):
    what = {
        "number": 1,
        "failed_step": failed_step,
        "lr_factor": factor,
        "divergence": failed(failed_step)["divergence"],
    }
    return {"step": step, "rollback": what}


class TestDivergence:
    def test_the_message(self):
        trace = {
            "steps": [10, 20],
            "losses": {"generator": [0.7, 1234.5]},
            "projections": {"generator": [0.0, 1.0]},
        }
        (found,) = check_divergence(history([{"step": 20, "trace": trace}, failed(25)]))
        assert (
            found.message
            == "Training diverged in step 25. The first non-finite tensor is here. Before, the"
            " generator's loss went from 0.7 to 1.23e+03. Try a smaller learning rate, a penalty"
            " on the discriminator (problem.r1), or on_divergence=roll_back."
        )
        assert (found.key, found.level, found.since) == ("divergence generator", "alarm", 25)
        assert found.numbers == {"step": 25.0, "share": 0.25, "largest": 3e38}

    @pytest.mark.parametrize(
        ("place", "remedy"),
        [
            ("data", "The cause is in the data, not in the networks."),
            (
                "parameter",
                "The parameters were not finite before this step; start from an earlier"
                " checkpoint.",
            ),
            (
                "gradient",
                (
                    "Try a smaller learning rate, a penalty on the discriminator (problem.r1), or"
                    " on_divergence=roll_back."
                ),
            ),
        ],
    )
    def test_remedies(self, place, remedy):
        (found,) = check_divergence(history([failed(1, place)]))
        assert (
            found.message
            == f"Training diverged in step 1. The first non-finite tensor is here. {remedy}"
        )

    def test_an_update_has_no_share(self):
        (found,) = check_divergence(history([failed(1, "update", share=None)]))
        assert math.isnan(found.numbers["share"])

    @pytest.mark.parametrize(
        ("lines", "times"),
        [
            (
                [rolled_back(100, 107, 0.5)],
                "1 time, last in step 107, and continued with learning rates × 0.5.",
            ),
            (
                [rolled_back(100, 107, 0.5), rolled_back(200, 230, 0.25)],
                "2 times, last in step 230, and continued with learning rates × 0.25.",
            ),
        ],
    )
    def test_rolled_back(self, lines, times):
        (found,) = check_divergence(history([*lines, {"step": 300}]))
        assert (
            found.message
            == f"Training diverged {times} The first non-finite tensor is here. Try these"
            " learning rates from the start."
        )
        assert (found.key, found.level, found.since) == (
            "rolled-back game",
            "warning",
            lines[-1]["rollback"]["failed_step"],
        )

    def test_a_run_that_failed_right_after_its_checkpoint_and_went_on_did_not_end_there(self):
        """Rolling back to step 100 keeps the line of step 101's failure, which was logged at step
        100."""
        (found,) = check_divergence(
            history([{"step": 100}, failed(101), rolled_back(100, 101, 0.5), {"step": 200}])
        )
        assert found.name == "rolled-back"

    def test_one_that_failed_again_did(self):
        (found,) = check_divergence(
            history([rolled_back(100, 101, 0.5), {"step": 150}, failed(160)])
        )
        assert (found.name, found.since) == ("divergence", 160)


def troubled():
    """A run in which everything goes wrong that can."""
    wave = np.cos(2 * np.pi * np.arange(400) / 20).tolist()
    trace = {
        "steps": [k + 1 for k in range(400)],
        **{kind: dict.fromkeys(PLAYERS, wave) for kind in ("losses", "projections")},
    }
    lines = [{"step": 0, "probe": probe()}]
    for step in range(40, 401, 40):
        losses = {"discriminator": 0.01, "generator": -0.001}
        metrics = {"modes": 1.0, "ema/modes": 1.0, "ema/copying": 0.9}
        bad = probe(1e-8, saturated=1.0, membership_auc=0.9, diversity=0.01)
        lines.append(
            {
                "step": step,
                "losses": losses,
                "gradient_norms": dict(losses),
                "metrics": metrics,
                "probe": bad,
            }
        )
    return [*lines[:-1], {**lines[-1], "trace": trace}, failed(401)]


def healthy():
    t = np.random.default_rng(0)
    lines = [{"step": 0, "probe": probe()}]
    for step in range(40, 401, 40):
        trace = {
            "steps": [step - 40 + k + 1 for k in range(40)],
            "losses": {player: t.standard_normal(40).tolist() for player in PLAYERS},
            "projections": {player: t.standard_normal(40).tolist() for player in PLAYERS},
        }
        losses = {"discriminator": 1.2, "generator": -0.6}
        lines.append(
            {
                "step": step,
                "losses": losses,
                "gradient_norms": losses,
                "metrics": {"ema/modes": 8.0},
                "probe": probe(),
                "trace": trace,
            }
        )
    return lines


def leaves(value, path=()):
    """Paths of all floats; a roll-back's rate is the only one that is never NaN."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))
    elif isinstance(value, float) and path[-1] != "lr_factor":
        yield path


def put(lines, path, value):
    inner = lines
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value


def copy(lines):
    return json.loads(json.dumps(lines))


class TestDiagnose:
    def test_everything_at_once_is_ranked(self):
        found = diagnose(history(troubled()))
        assert {finding.key for finding in found} == {
            "divergence generator",
            "vanishing-gradient generator",
            "mode-loss generator",
            "low-diversity generator",
            "copying generator",
            "loss-out-of-range discriminator",
            "oscillation game",
            "overfitting discriminator",
        }
        assert [finding.level for finding in found] == ["alarm"] * 5 + ["warning"] * 3
        unranked = [finding for check in CHECKS for finding in check(history(troubled()))]
        for level in ("alarm", "warning"):
            assert [f for f in found if f.level == level] == [
                f for f in unranked if f.level == level
            ]
        assert found[0].name == "divergence"

    def test_messages_and_evidence_are_numbers(self):
        for finding in diagnose(history(troubled())):
            assert re.search(r"\d", finding.message)
            assert re.search(r"\b(Try|Look|start)\b", finding.message)
            assert "nan" not in finding.message
            assert "inf" not in finding.message
            assert finding.numbers
            assert all(
                type(value) is float and math.isfinite(value) for value in finding.numbers.values()
            )
            assert finding.since is None or type(finding.since) is int

    def test_a_log_that_was_read_again_gives_the_same_findings(self):
        lines = troubled()
        read = [json.loads(json_line(line)) for line in lines]
        assert diagnose(history(read)) == diagnose(history(lines))

    @pytest.mark.parametrize("loss", list(LOSS_RANGES))
    def test_an_empty_history_has_no_findings(self, loss):
        for lines in (
            [],
            [{"step": 0}],
            [{"step": 5, "seconds": 0.1}],
            [{"step": 0, "probe": probe()}],
        ):
            for coverage in (None, ("modes", 8.0)):
                assert diagnose(history(lines, loss, coverage)) == []

    def test_a_healthy_run(self):
        assert diagnose(history(healthy())) == []

    @pytest.mark.parametrize("k", range(12))
    def test_a_single_line_of_trouble_is_checked(self, k):
        """Whatever the line, no check raises on it alone."""
        for lines in ([troubled()[k]], troubled()[: k + 1]):
            assert len(CHECKS) == 8
            assert all(isinstance(check(history(lines)), list) for check in CHECKS)

    def test_null_and_nan_in_every_place(self):
        """A resumed run reads null where the live one had NaN; both are diagnosed, and alike."""
        lines = [*troubled()[:-1], rolled_back(400, 401, 0.5), failed(402)]
        paths = [path for path in leaves(lines) if "trace" not in path]
        assert len(paths) > 100
        for path in paths:
            null, nan = copy(lines), copy(lines)
            put(null, path, None)
            put(nan, path, math.nan)
            assert [f.key for f in diagnose(history(null))] == [
                f.key for f in diagnose(history(nan))
            ]

    @pytest.mark.parametrize("value", [None, math.nan])
    def test_null_everywhere(self, value):
        lines = copy(troubled())
        for path in list(leaves(lines)):
            put(lines, path, value)
        assert [finding.key for finding in diagnose(history(lines))] == ["divergence generator"]

    @given(st.lists(st.integers(0, 399), max_size=60))
    def test_gaps_in_a_trace(self, gaps):
        lines = copy(troubled())
        for kind in ("losses", "projections"):
            for k in gaps:
                lines[-2]["trace"][kind]["generator"][k] = None
        assert "divergence generator" in {finding.key for finding in diagnose(history(lines))}


PARTS = [
    {"gradients": {"norms": {"discriminator": 1.0, "generator": 1e-9}}},
    {"saturated": {"generator": 1.0}},
    {"accuracy": 0.5},
    {"gradients": {}, "saturated": None},
    {"gradients": {"norms": {"generator": 1e-9}}},
]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("first", PARTS)
def test_a_probe_may_be_partial(first, part):
    """Every key of a line but its step may be missing; checks need no more than they use."""
    lines = [
        {"step": 0, "probe": first},
        {"step": 5, "gradient_norms": None},
        {"step": 10, "probe": part, "trace": {"losses": None}},
    ]
    lines += [{"step": 11, "gradient_norms": {"generator": 1.0}}]
    diagnose(History(loss="minimax", lines=lines))


@pytest.mark.parametrize(
    "last",
    [
        {"divergence": {"step": 3}},
        {"divergence": {"player": "generator"}},
        {"rollback": {"number": 1}},
    ],
)
def test_a_divergence_may_be_partial(last):
    assert diagnose(History(loss="minimax", lines=[{"step": 2, **last}]))[0].message.startswith(
        "Training diverged"
    )


def test_a_line_needs_a_step():
    with pytest.raises(sp.UsageError, match='has no "step"'):
        History(loss="minimax", lines=[{"losses": {}}])


def test_a_vanished_gradient_is_found_without_the_other_numbers_of_a_probe():
    probes = [
        {"gradients": {"norms": {"discriminator": 1.0, "generator": norm}}} for norm in (1.0, 1e-9)
    ]
    lines = [
        {"step": 10 * k, "probe": probe, "gradient_norms": {"generator": 1.0}}
        for k, probe in enumerate(probes)
    ]
    assert [finding.key for finding in diagnose(History(loss="minimax", lines=lines))] == [
        "vanishing-gradient generator"
    ]
