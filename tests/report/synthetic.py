"""Small made-up runs and comparisons, with everything that a report can show."""

import json
import math
import random
from pathlib import Path

import yaml
from PIL import Image, ImageDraw

ENVIRONMENT = {
    "saddlepoint": "0.1.0",
    "python": "3.11.7",
    "torch": "2.13.0+cpu",
    "numpy": "2.4.6",
    "platform": "Linux-6.18-x86_64",
    "device": "cpu",
    "cpus": 2,
    "threads": 2,
    "git_revision": None,
    "command": ["saddlepoint", "train", "mixture8", "--set", "rule.note=two words"],
}
CONFIG = {
    "problem": {"name": "mixture8", "loss": "minimax", "latent": 16},
    "rule": {"name": "gradient"},
    "optimizer": {"name": "adam", "lr": 0.002, "players": {"discriminator": {"lr": 0.001}}},
    "update_scheme": "alternating",
    "steps": 600,
}
METHODS = [
    "adam",
    "soap",
    "sign",
    "extragradient+adam",
    "acgd",
    "consensus",
    "newton",
    "lookahead",
    "normalized",
    "jare",
    "sga",
]
FAMILIES = {
    "soap": "second-order",
    "acgd": "second-order",
    "newton": "second-order",
    "sign": "subgradient",
    "normalized": "subgradient",
}


def picture(path: Path, seed: int, spread: float = 0.05, size: int = 160) -> None:
    """Draw points around eight modes."""
    draws = random.Random(seed)
    image = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(150):
        angle = 2 * math.pi * draws.randrange(8) / 8
        x, y = (
            size * (0.5 + 0.36 * f(angle) + draws.gauss(0, spread)) for f in (math.cos, math.sin)
        )
        pen.rectangle((x, y, x + 1, y + 1), fill="#1f5fa8")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def run(
    path: Path, *, ended: bool = True, evaluated: bool = True, diagnosed: bool = True, **config
) -> Path:
    """Write a run's directory."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **config}, sort_keys=False))
    (path / "environment.json").write_text(json.dumps(ENVIRONMENT))
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log()))
    for step in (0, 200, 400, 600):
        picture(path / "samples" / f"step-{step:08d}.png", step, 0.2 - step / 4000)
    for name, content, there in (
        ("summary", summary(), ended),
        ("evaluation", evaluation(), evaluated),
        ("diagnosis", diagnosis(), diagnosed),
    ):
        if there:
            (path / f"{name}.json").write_text(json.dumps(content))
    return path


def log():
    lines = []
    for step in range(0, 601, 50):
        line = {
            "step": step,
            "seconds": step / 50,
            "gradient_equivalents": 2.0 * step,
            "probe": probe(step),
        }
        if step:
            line |= {
                "losses": {"discriminator": 1.39 - 0.1 * math.sin(step / 90), "generator": -0.7},
                "gradient_norms": {
                    "discriminator": 1 / (1 + step / 60),
                    "generator": 0.1 + 0.02 * math.sin(step / 40),
                },
                "trace": {
                    "steps": list(range(step - 49, step + 1)),
                    "losses": {
                        "discriminator": [
                            1.39 - 0.1 * math.sin(s / 90) + 0.02 * math.sin(s)
                            for s in range(step - 49, step + 1)
                        ],
                        "generator": [
                            -0.7 + 0.05 * math.sin(s / 70) for s in range(step - 49, step + 1)
                        ],
                    },
                },
            }
        if step and step % 100 == 0:
            line["metrics"] = metrics(step)
        lines.append(line)
    return lines


def metrics(step):
    return {
        "modes": min(8.0, step // 60),
        "quality": step / 700,
        "ema/modes": min(8.0, step // 50),
        "ema/quality": step / 650,
    }


def probe(step):
    return {
        "gradients": {"norms": {"discriminator": 1.0, "generator": 0.1}},
        "saturated": {"discriminator": 0.0, "generator": step / 6000},
        "accuracy": 0.5 + step / 3000,
        "membership_auc": None,
        "antisymmetric": 0.1 + step / 2000,
        "update_cosine": {"discriminator": 0.4, "generator": 0.2} if step else None,
        "diversity": 0.2 + step / 800,
        "unmeasured": {"membership_auc": "the data is not a finite set"},
    }


def summary():
    return {
        "status": "finished",
        "steps": 600,
        "seconds": 12.0,
        "seconds_per_step": 0.02,
        "seconds_here": 12.0,
        "observing_seconds": 3.0,
        "evaluating_seconds": 1.0,
        "probing_seconds": 1.5,
        "cost": {"gradients": 1200, "products": 0, "losses": 1200},
        "unconverged_solves": 0,
        "rollbacks": 0,
        "metrics": metrics(600),
        "best": {"score": -8.8, "step": 600},
        "findings": [finding()],
        "loss_ranges": {
            "discriminator": {"low": 0.1, "chance": 1.386, "high": 1.586},
            "generator": {"low": -2.0, "chance": -0.693, "high": -0.02},
        },
        "metric_names": {
            "modes": {"meaning": "modes with at least one sample within 3σ", "better": "larger"},
            "quality": {"meaning": "share of samples within 3σ of a mode", "better": "larger"},
        },
        "extractors": {},
    }


def finding():
    return {
        "name": "mode-loss",
        "player": "generator",
        "message": (
            "The generator makes 5.8 of 8 effective modes, down from 7.8 at step 400: mode collapse"
            " since step 600."
        ),
        "numbers": {"effective_modes": 5.8},
        "level": "alarm",
        "since": 600,
    }


def result(metric, weights, value):
    return {
        "metric": metric,
        "value": value,
        "interval": [value - 0.02, value + 0.02],
        "level": 0.95,
        "replicates": 200,
        "generated": 2500,
        "real": 0,
        "split": "known density",
        "extractor": "none",
        "extractor_hash": "",
        "resize": "none",
        "weights": weights,
        "seed": 0,
    }


def evaluation():
    return {
        "step": 600,
        "extractors": {},
        "results": [result("quality", "raw", 0.857), result("quality", "ema", 0.923)],
    }


def diagnosis():
    spectrum = {
        "leading": [[17.7, 0.0], [2.9, 1.9], [2.9, -1.9], [0.5, 0.1], [0.5, -0.1]],
        "smallest": [[-0.4, 0.0]],
        "own": {"discriminator": [-0.36, 0.4, 8.1], "generator": [-0.43, 1.5, 18.0]},
        "classes": ["unstable", "saddle of generator's loss"],
        "gradient_norm": 0.47,
        "converged": True,
        "rotation_ratio": float("inf"),
    }
    return {
        "step": 600,
        "findings": [finding()],
        "spectrum": spectrum,
        "unmeasured": {"path": "there is no earlier checkpoint"},
    }


def comparison(
    directory: Path,
    *,
    methods=tuple(METHODS),
    problems=("mixture8 leaky_relu", "digits"),
    seeds=5,
    pictures=True,
) -> Path:
    """Write a comparison's directory: each method a bit worse than the one before, the last one
    diverging in two of three seeds."""
    directory.mkdir(parents=True, exist_ok=True)
    content = {
        "format": 1,
        "name": "evidence",
        "command": ["saddlepoint", "compare", "studies/evidence.yaml"],
        "environment": ENVIRONMENT,
        "study": {"name": "evidence", "seeds": seeds, "methods": {name: {} for name in methods}},
        "problems": [
            problem(directory, number, name, methods, seeds, pictures)
            for number, name in enumerate(problems)
        ],
    }
    (directory / "comparison.json").write_text(json.dumps(content))
    return directory


def problem(directory, number, name, methods, seeds, pictures):
    rows = [
        method(directory, number, index, name, seeds, pictures, last=index == len(methods) - 1 > 1)
        for index, name in enumerate(methods)
    ]
    metric = "ema/total-variation"
    return {
        "name": name,
        "problem": {"name": name.split()[0], "activation": "leaky_relu"},
        "budget": {"seconds": 15.0} if number % 2 == 0 else {"gradient_equivalents": 20000},
        "metric": metric,
        "better": "smaller",
        "target": 0.3,
        "metrics": {
            metric: {"meaning": "½ Σ |p − q| over the cells of a grid", "better": "smaller"},
            "ema/modes": {
                "meaning": "modes with at least one sample within 3σ",
                "better": "larger",
            },
        },
        "baseline": methods[0],
        "methods": rows,
        "pairs": [
            {
                "first": other,
                "second": methods[0],
                "better": 0.92 - 0.08 * k,
                "p": 0.004 * (k + 1),
                "p_adjusted": min(1.0, 0.03 * (k + 1)),
            }
            for k, other in enumerate(methods[1:])
        ],
    }


def method(directory, number, index, name, seeds, pictures, *, last):
    level = 0.12 + 0.045 * ((index * 7 + number) % 11)
    lost = {seed for seed in range(seeds) if last and seed % 3 != 2}
    runs = [
        one_run(directory, number, index, seed, level, seed in lost, pictures and seed == 0)
        for seed in range(seeds)
    ]
    values = sorted(
        math.inf if run["metrics"] is None else run["metrics"]["ema/total-variation"]
        for run in runs
    )
    median = values[len(values) // 2] if values else None
    reached = sum(value <= 0.3 for value in values)
    family = FAMILIES.get(name, "first-order")
    return {
        "name": name,
        "family": family,
        "description": f"gradient + {name}, alternating",
        "config": {
            "problem": {"name": "mixture8"},
            "rule": {"name": "gradient"},
            "optimizer": {
                "name": name,
                "lr": 1e-3 * (index + 1),
                "players": {"discriminator": {"lr": 5e-4}},
            },
            "update_scheme": "alternating" if index % 2 == 0 else "simultaneous",
            "batch_size": 64,
        },
        "tuning": {
            "space": {
                "optimizer.lr": {"log": [3e-4, 1e-2]},
                "ratio": {"choices": [0.25, 0.5, 1.0]},
            },
            "trials": [
                {
                    "number": k,
                    "parameters": {"optimizer.lr": 3e-4 * 2**k, "ratio": 0.5},
                    "value": None if k == 3 else level + 0.02 * k,
                    "status": "diverged" if k == 3 else "finished",
                }
                for k in range(4)
            ],
            "best": {"optimizer.lr": 3e-4, "ratio": 0.5},
        },
        "runs": runs,
        "summary": {
            "median": None if median is None or math.isinf(median) else median,
            "interval": [values[0], None if math.isinf(values[-1]) else values[-1]]
            if values and math.isfinite(values[0])
            else None,
            "success": {"rate": reached / seeds, "interval": [0.4, 0.97], "runs": seeds}
            if seeds
            else None,
            "diverged": len(lost),
            "failed": 0,
            "time_to_target": {
                "median": 3.2 + index if reached > seeds / 2 else None,
                "reached": reached,
                "censored": seeds - reached,
            },
            "milliseconds_per_step": 2.1 + 1.7 * (index % 4),
            "gradient_equivalents_per_step": 2.0 + 2 * (index % 4),
            "peak_memory": 12_345_678 + 1_000_000 * index,
        }
        if runs
        else None,
        "robustness": {
            "factors": [0.1, 0.316, 1.0, 3.16, 10.0],
            "seeds": [0, 1, 2],
            "success": [[(index + k + seed) % 4 < 2 for seed in range(3)] for k in range(5)],
            "values": [
                [0.1 + 0.05 * ((index + k + seed) % 4) if k < 4 else None for seed in range(3)]
                for k in range(5)
            ],
        }
        if runs
        else None,
    }


def one_run(directory, number, index, seed, level, diverged, pictures):
    points = []
    for k in range(1, (5 if diverged else 9)):
        file = None
        if pictures:
            file = f"pictures/p{number}/m{index}/seed-{seed}/{k:02d}.png"
            picture(directory / file, 100 * index + seed, 0.02 + 0.15 * level * (9 - k) / 8)
        value = level + (0.95 - level) * math.exp(-k / (1.5 + 0.2 * index)) * (
            1 + 0.1 * math.sin(seed + index)
        )
        points.append(
            {
                "progress": k / 8,
                "step": 900 * k // (1 + index % 4),
                "seconds": 15 * k / 8 + 0.003 * seed,
                "gradient_equivalents": 2500.0 * k,
                "metrics": {"ema/total-variation": value + 0.012 * seed, "ema/modes": min(8, k)},
                "losses": {
                    "discriminator": 1.39 - 0.1 * math.sin(k + index),
                    "generator": -0.7 + 0.05 * math.cos(k + index),
                },
                "gradient_norms": {
                    "discriminator": 1 / (k + index + 1),
                    "generator": 0.1 / (k + 1),
                },
                "picture": file,
            }
        )
    return {
        "seed": seed,
        "status": "diverged" if diverged else "finished",
        "error": 'Step 1,801: player "generator": the loss is NaN.' if diverged else None,
        "steps": points[-1]["step"],
        "seconds": points[-1]["seconds"],
        "gradient_equivalents": points[-1]["gradient_equivalents"],
        "peak_memory": 12_345_678,
        "unconverged_solves": 0,
        "metrics": None if diverged else points[-1]["metrics"],
        "points": points,
    }
