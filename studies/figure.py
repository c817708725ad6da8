"""The picture of the README."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from studies.numbers import called, methods

COLOURS = {
    "pytorch_optimizer:SOAP": "#1b5fb4",
    "consensus+adam": "#d1651b",
    "adam": "#333333",
    "signum": "#b0457b",
    "normalized": "#9a6bd8",
    "acgd": "#0b8f6a",
}


def draw(study, folder, path):
    """Draw the course of some methods on the ring of the mission's activation, and the samples of
    Adam and of the best."""
    problem = called(study, "mixture8 leaky_relu")
    own = {method["name"]: method for method in methods(problem)}
    fig, axes = plt.subplots(
        1, 3, figsize=(11, 3.7), layout="constrained", width_ratios=(1.45, 1, 1)
    )
    # the worst at the top of the legend, as in the chart
    for name in (name for name in reversed(own) if name in COLOURS):
        seconds = np.mean(
            [[point["seconds"] for point in run["points"]] for run in own[name]["runs"]], axis=0
        )
        values = np.array(
            [
                [point["metrics"][problem["metric"]] for point in run["points"]]
                for run in own[name]["runs"]
            ]
        )
        axes[0].plot(
            seconds, np.median(values, axis=0), label=name, color=COLOURS[name], linewidth=2
        )
        axes[0].fill_between(
            seconds,
            values.min(axis=0),
            values.max(axis=0),
            color=COLOURS[name],
            alpha=0.1,
            linewidth=0,
        )
    axes[0].set(xlabel="seconds of training, one core", ylim=(0, 1.02), xlim=(0.5, 10.2))
    axes[0].set_title(
        "distance of mode shares from uniform (0 is best)",
        fontsize=10,
        loc="left",
    )
    axes[0].spines[["top", "right"]].set_visible(False)
    axes[0].grid(alpha=0.25)
    axes[0].legend(frameon=False, loc="lower left", fontsize=9)
    for axis, name in zip(axes[1:], ("adam", "pytorch_optimizer:SOAP"), strict=True):
        axis.imshow(plt.imread(folder / own[name]["runs"][0]["points"][-1]["picture"]))
        axis.set_title(f"{name}\nfirst seed, after {problem['budget']['seconds']:g} s", fontsize=10)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("#cccccc")
    fig.savefig(path, dpi=120)
