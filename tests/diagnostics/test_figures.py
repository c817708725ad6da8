import io
import math
import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from saddlepoint.diagnostics import (
    LOSS_RANGES,
    Finding,
    GameSpectrum,
    History,
    PathAngle,
    game_spectrum,
    path_angle,
)
from saddlepoint.diagnostics.figures import course, figures, path_figure, png, spectrum_figure
from saddlepoint.games import zero_sum
from saddlepoint.models import MLP
from tests.conftest import TinyGan

SIZES = {"course": (1210, 1045), "spectrum": (1210, 550), "path": (880, 440)}  # inches × 110 dots
PLAYERS = ("discriminator", "generator")


def full_history(loss="minimax", coverage=("modes", 8.0)):
    return History(loss=loss, coverage=coverage, lines=full_lines())


def full_lines():
    lines = []
    for step in range(0, 201, 20):
        x = step / 200
        probe = {
            "accuracy": 0.5 + x / 4,
            "membership_auc": 0.5 + x / 8,
            "antisymmetric": 1 - x,
            "update_cosine": {"discriminator": x, "generator": -x},
            "diversity": x,
        }
        losses = {"discriminator": 1.4 - x, "generator": -0.7 - x}
        trace = {
            "steps": [step + 1, step + 2],
            "losses": {p: [v, v + 0.1] for p, v in losses.items()},
            "projections": {p: [0.0, x] for p in PLAYERS},
        }
        norms = {"discriminator": 1.0 + x, "generator": 10 ** (-6 * x)}
        metrics = {"modes": 8 * x, "ema/modes": 7 * x}
        lines.append(
            {
                "step": step,
                "losses": losses,
                "gradient_norms": norms,
                "metrics": metrics,
                "probe": probe,
                "trace": trace,
            }
        )
    return lines


def nulls(lines):
    """What lines look like in which every number was NaN."""

    def null(value):
        if isinstance(value, dict):
            return {
                key: inner if key in ("step", "steps") else null(inner)
                for key, inner in value.items()
            }
        return [null(inner) for inner in value] if isinstance(value, list) else None

    return [null(line) for line in lines]


FINDINGS = [
    Finding("mode-loss", "generator", "3 of 8.", {"modes": 3.0}, level="alarm", since=60),
    Finding("oscillation", "game", "A period of 9.", {"period": 9.0}),
]


def spectrum(**options):
    defaults = {
        "leading": (2 + 1j, 2 - 1j, -0.5 + 0j),
        "smallest": (-0.5 + 0j, 0j),
        "own": {"discriminator": (0.1, 3.0), "generator": (-2.0, 0.0)},
        "schur": None,
        "schur_reason": "no reason",
        "zero_sum": True,
        "gradient_norm": 0.1,
        "rotation_ratio": 0.5,
        "classes": ("unstable", "rotating"),
        "converged": True,
        "products": 100,
    }
    return GameSpectrum(**{**defaults, **options})


def path(*cosines):
    alphas = np.linspace(-0.5, 1.5, len(cosines))
    return PathAngle(
        tuple(alphas.tolist()), cosines, tuple(abs(a - 1) for a in alphas.tolist()), 2.0
    )


PATH = path(-0.9, -0.8, -0.5, 0.1, 0.9, 0.8, 0.7)


def opened(content):
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG"
        image.load()
        return image


def ink(content):
    """The share of dots that are not white."""
    return float((np.asarray(opened(content).convert("L")) < 250).mean())


class TestAll:
    @pytest.mark.parametrize(
        ("measured", "names"),
        [
            ((None, None), {"course"}),
            ((spectrum(), None), {"course", "spectrum"}),
            ((None, PATH), {"course", "path"}),
            ((spectrum(), PATH), {"course", "spectrum", "path"}),
        ],
    )
    def test_what_was_measured_is_drawn_in_its_size(self, measured, names):
        drawn = figures(full_history(), FINDINGS, *measured)
        assert set(drawn) == names
        for name, content in drawn.items():
            assert opened(content).size == SIZES[name]
            assert 0.01 < ink(content) < 0.5

    def test_the_same_bytes_twice(self):
        assert figures(full_history(), FINDINGS, spectrum(), PATH) == figures(
            full_history(), FINDINGS, spectrum(), PATH
        )

    def test_no_program_or_date_is_in_the_file(self):
        assert opened(png(path_figure(PATH))).info.keys() == {"dpi"}

    def test_settings_stay_and_nothing_is_kept(self):
        before = matplotlib.rcParams.copy()
        figures(full_history(), FINDINGS, spectrum(), PATH)
        assert matplotlib.rcParams.copy() == before

    def test_pyplot_and_screens_are_not_loaded(self):
        program = (
            "import sys\n"
            "from saddlepoint.diagnostics import History\n"
            "from saddlepoint.diagnostics.figures import figures\n"
            "assert figures(History(loss='minimax'), [], None, None)['course'][:4] == b'\\x89PNG'\n"
            "assert 'matplotlib.backends.backend_agg' in sys.modules\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
            "assert 'tkinter' not in sys.modules\n"
        )
        subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            check=True,
            env={**os.environ, "MPLBACKEND": "TkAgg"},
        )

    def test_looking_at_a_run_does_not_load_matplotlib(self):
        subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys, saddlepoint.diagnostics; assert 'matplotlib' not in sys.modules",
            ],
            check=True,
        )


class TestCourse:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("loss", "coverage"),
        list(
            zip(
                LOSS_RANGES, [None, ("modes", 8.0), ("recall", 1.0), ("modes", 1000.0)], strict=True
            )
        ),
    )
    def test_empty_minimal_and_full(self, loss, coverage):
        complete = full_lines()
        one = {"step": 0, "probe": complete[0]["probe"]}
        for lines in ([], [one], complete, nulls(complete)):
            assert (
                opened(
                    png(course(History(loss=loss, coverage=coverage, lines=lines), FINDINGS))
                ).size
                == SIZES["course"]
            )

    def test_the_panels(self):
        figure = course(full_history(), FINDINGS)
        titles = [axis.get_title() for axis in figure.axes]
        assert titles == [
            "minimax losses; shaded: healthy, dotted: chance",
            "gradient norms ‖ξ_i‖",
            "discriminator",
            "rotation",
            "diversity",
            "coverage",
        ]
        assert figure.axes[1].get_yscale() == "log"
        fine = next(line for line in figure.axes[0].lines if line.get_label() == "discriminator")
        assert len(fine.get_xdata()) == 22  # the trace, not the eleven lines
        heights = {
            float(line.get_ydata()[0])
            for line in figure.axes[0].lines
            if line.get_linestyle() == ":"
        }
        assert heights == {healthy.chance for healthy in LOSS_RANGES["minimax"].values()}

    def test_losses_without_a_trace(self):
        lines = [
            {key: value for key, value in line.items() if key != "trace"} for line in full_lines()
        ]
        figure = course(History(loss="minimax", lines=lines), [])
        (line,) = [line for line in figure.axes[0].lines if line.get_label() == "generator"]
        assert line.get_ydata() == pytest.approx([-0.7 - k / 10 for k in range(11)])

    def test_onsets_of_what_is_serious(self):
        note = Finding("note", "game", "1", {"a": 1.0}, level="note", since=100)
        for axis in course(full_history(), [*FINDINGS, note]).axes:
            marks = [line.get_xdata()[0] for line in axis.lines if line.get_color() == "#b00020"]
            assert marks == [60]

    def test_gradients_that_are_all_zero(self):
        lines = [{"step": k, "gradient_norms": dict.fromkeys(PLAYERS, 0.0)} for k in range(3)]
        assert course(History(loss="hinge", lines=lines), []).axes[1].get_yscale() == "linear"
        lines.append({"step": 3, "gradient_norms": {"discriminator": 0.0, "generator": 1.0}})
        assert opened(png(course(History(loss="hinge", lines=lines), []))).size == SIZES["course"]


class TestSpectrum:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"leading": (), "smallest": (), "own": {}, "classes": ()},
            {"leading": (0j,), "smallest": (0j,), "own": {"x": (0.0,), "y": ()}},
            {
                "leading": (1e12 + 0j,),
                "smallest": (-1e-12 + 0j,),
                "own": {"firm0": (1e-9, 1e9), "firm1": (2.0,), "firm2": (-1.0,)},
            },
        ],
    )
    def test_of_all_kinds(self, options):
        assert opened(png(spectrum_figure(spectrum(**options)))).size == SIZES["spectrum"]

    def test_points_are_where_the_eigenvalues_are(self):
        """Those that attract are dots, the others, 0 among them, crosses."""
        plane, lines = spectrum_figure(spectrum()).axes
        attracts, repels = (
            sorted(map(tuple, points.get_offsets().tolist())) for points in plane.collections
        )
        assert attracts == [(2.0, -1.0), (2.0, 1.0)]
        assert repels == [(-0.5, 0.0), (0.0, 0.0)]
        assert [label.get_text() for label in lines.get_yticklabels()] == [
            "discriminator",
            "generator",
        ]
        assert [points.get_offsets().tolist() for points in lines.collections] == [
            [[0.1, 0.0], [3.0, 0.0]],
            [[-2.0, 1.0], [0.0, 1.0]],
        ]

    def test_of_a_game(self):
        game = zero_sum(-6.0, 4.0, -2.0)
        figure = spectrum_figure(game_spectrum(game.players, game.losses, leader="x"))
        assert figure.get_suptitle() == "unstable, local minimax, no minimum of x's loss"
        assert opened(png(figure)).size == SIZES["spectrum"]


class TestPath:
    @pytest.mark.parametrize("cosines", [PATH.cosines, (math.nan,) * 5, (0.0, math.nan, 1.0)])
    def test_of_all_kinds(self, cosines):
        assert opened(png(path_figure(path(*cosines)))).size == SIZES["path"]

    def test_of_a_game(self):
        gan = TinyGan()
        networks = {"discriminator": gan.D, "generator": gan.G}
        draws = torch.Generator().manual_seed(1)
        other = {
            "discriminator": MLP((2, 3, 1), generator=draws).double(),
            "generator": MLP((2, 3, 2), generator=draws).double(),
        }
        states = [
            {player: net.state_dict() for player, net in nets.items()} for nets in (other, networks)
        ]
        found = path_angle(networks, gan.losses, *states)
        figure = path_figure(found)
        assert figure.get_suptitle() == found.summary
        (angle,) = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
        assert angle.get_ydata() == pytest.approx(found.cosines)
        assert opened(png(figure)).size == SIZES["path"]
