"""From weights to metrics and pictures: during training, and afterwards with intervals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from saddlepoint.data import generator_for
from saddlepoint.errors import UsageError, did_you_mean
from saddlepoint.io.limits import MAX_JSON_BYTES, parse_json, read_bytes
from saddlepoint.metrics import Measure, MetricResult, difference
from saddlepoint.metrics.result import Weights
from saddlepoint.problems.base import GENERATOR
from saddlepoint.training.run_directory import RunDirectory
from saddlepoint.training.trainer import Trainer

Results = dict[str, dict[str, MetricResult]]
"""Prefix of the weights → metric → result."""

WEIGHTS: dict[str, Weights] = {"": "raw", "ema/": "ema", "average/": "average"}
"""Prefix of a metric's name → the generator weights that it was measured on."""


class Evaluator:
    """Measures the generator of a trainer on held-out data; the trainer is not changed.

    The generator's current weights are measured, its moving average under the prefix ``ema/``, and
    under ``average/`` the average that the rule or the generator's optimizer keeps, if one does.

    Args:
        trainer: the run to evaluate.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.problem, self.config = trainer.problem, trainer.config

    def evaluate(
        self,
        samples: int | None = None,
        seed: int | None = None,
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[str, float]:
        """Return metric → value; the prefix of a name says which weights were measured.

        Several processes share the work: each generates a part of the samples and measures a part
        of the weights, and all return all values.

        Args:
            samples: number of generated samples; ``evaluation_samples`` by default.
            seed: seed of the noise; ``evaluation_seed`` by default.
            progress: called with the number of finished metrics and their total number.
        """
        distributed = self.trainer.distributed
        own = self.measures(
            samples, seed, progress=progress, number=distributed.rank, of=distributed.world_size
        )
        values = {}
        for prefix, measures in own.items():
            values[prefix] = {name: measure.value for name, measure in measures.items()}
        gathered = {}
        for part in distributed.all_gather(values):
            gathered.update(part)
        metrics = {}
        for prefix in self._weights():
            for name, value in gathered[prefix].items():
                metrics[prefix + name] = value
        return metrics

    def measures(
        self,
        samples: int | None = None,
        seed: int | None = None,
        *,
        progress: Callable[[int, int], None] = lambda done, total: None,
        number: int = 0,
        of: int = 1,
    ) -> dict[str, dict[str, Measure]]:
        """Return prefix → metric → value with the data that it was measured on.

        Args:
            samples: as in ``evaluate``.
            seed: as in ``evaluate``.
            progress: as in ``evaluate``.
            number: with ``of``, measure every ``of``-th kind of weights from this number on.
            of: see ``number``.
        """
        n = self.config.evaluation_samples if samples is None else samples
        seed = self.config.evaluation_seed if seed is None else seed
        generated = {}
        for position, (prefix, context) in enumerate(self._weights().items()):
            with context, self.trainer.eval_mode_optimizers.eval_mode():
                drawn = self._generate(prefix, n, seed)
            if position % of == number:
                generated[prefix] = drawn
        names, measured = len(self.problem.metric_names), dict[str, dict[str, Measure]]()
        for prefix, drawn in generated.items():
            done, measured[prefix] = len(measured) * names, {}
            progress(done, len(generated) * names)
            for name, measure in self.problem.measures(drawn):
                measured[prefix][name] = measure
                progress(done + len(measured[prefix]), len(generated) * names)
        return measured

    def evaluate_only(self, names: Collection[str]) -> dict[str, float]:
        """Return the named metrics, and those of the same weights that are computed before them.

        Args:
            names: names with their prefixes.

        Raises:
            UsageError: a name is no metric of the problem, or its weights are not kept.
        """
        config, missing, found = self.config, set(names), dict[str, float]()
        for prefix, context in self._weights().items():
            wanted = {name for name in missing if weights_prefix(name) == prefix}
            with context, self.trainer.eval_mode_optimizers.eval_mode():
                if not wanted:
                    continue
                drawn = self._generate(prefix, config.evaluation_samples, config.evaluation_seed)
            for name, measure in self.problem.measures(drawn):
                found[prefix + name] = measure.value
                wanted.discard(prefix + name)
                missing.discard(prefix + name)
                if not wanted:
                    break
        if missing:
            known: list[str] = []
            for prefix in self._weights():
                known += [prefix + name for name in self.problem.metric_names]
            name = min(missing)
            raise UsageError(
                f'Problem {self.problem.name} has no metric "{name}" in this run.'
                + did_you_mean(name, known)
            )
        return found

    def check_sample_count(self) -> None:
        """Measure once before a run is created if there are fewer samples than the default.

        Raises:
            UsageError: a metric needs more samples.
        """
        default = self.problem.evaluation_samples
        real = self.problem.held_out(default, self.config.seed)
        few_real = real is not None and len(real) < default
        if self.config.evaluation_samples >= default and not few_real:
            return
        try:
            self.measures()
        except UsageError as error:
            held_out = f" and {len(real)} held-out samples" if real is not None and few_real else ""
            raise UsageError(
                f"Cannot evaluate the problem {self.problem.name} with"
                f" evaluation_samples={self.config.evaluation_samples}{held_out}: {error}"
            ) from error

    def score(self, metrics: Mapping[str, float], by: str | None = None) -> float:
        """Return the number that the best evaluation minimises.

        Args:
            metrics: name → value of an evaluation.
            by: a metric; ``best_by`` by default, and without it the problem's score of the
                generator's moving average.

        Raises:
            UsageError: the metric was not measured, or has no direction.
        """
        by = self.config.best_by if by is None else by
        if by is None:
            return self.problem.score(
                {
                    name.removeprefix("ema/"): value
                    for name, value in metrics.items()
                    if name.startswith("ema/")
                }
            )
        directions = {
            name: better
            for name in metrics
            if (better := self.problem.metric_names[bare_metric(name)].better)
        }
        if by not in directions:
            reason = "the metric has no direction" if by in metrics else "it was not measured"
            raise UsageError(
                f'Cannot select the best checkpoint by "{by}": {reason}.'
                + did_you_mean(by, directions)
            )
        return metrics[by] if directions[by] == "smaller" else -metrics[by]

    def picture(
        self, n: int | None = None, seed: int | None = None, *, ema: bool = True
    ) -> Image.Image:
        """Return a picture of generated samples, from noise that is the same at every step.

        Args:
            n: number of samples; the problem's number by default.
            seed: seed of the noise; the run's seed by default.
            ema: whether to use the moving average of the generator's weights.
        """
        network = self.trainer.ema.module if ema else self.trainer.networks[GENERATOR]
        n = self.problem.picture_samples if n is None else n
        with self.trainer.eval_mode_optimizers.eval_mode():
            samples = self.problem.generate(
                network, n, self.config.seed if seed is None else seed, "samples"
            )
        return self.problem.picture(samples)

    def _weights(self) -> dict[str, AbstractContextManager[None]]:
        """Return prefix → context in which the generator's network has these weights."""
        kept: dict[str, AbstractContextManager[None]] = {"": nullcontext(), "ema/": nullcontext()}
        if self.trainer.step and self.trainer.optimizer.keeps_average:
            kept["average/"] = self.trainer.optimizer.averaged()
        return kept

    def _generate(self, prefix: str, n: int, seed: int) -> Tensor:
        """Return n generated samples; several processes generate the chunks in turn."""
        trainer = self.trainer
        network = trainer.ema.module if prefix == "ema/" else trainer.networks[GENERATOR]
        distributed, world = trainer.distributed, trainer.distributed.world_size
        chunks = self.problem.noise_chunks(n, seed, "evaluation")
        own = [self.problem.sample(network, noise) for noise in chunks[distributed.rank :: world]]
        gathered = distributed.all_gather(own)
        return torch.cat([gathered[k % world][k // world] for k in range(len(chunks))])


def bare_metric(metric: str) -> str:
    """Return a metric's name without the prefix of its weights.

    >>> bare_metric("ema/modes"), bare_metric("modes")
    ('modes', 'modes')
    """
    return metric.removeprefix("ema/").removeprefix("average/")


def weights_prefix(metric: str) -> str:
    """Return the prefix of a metric's name, which says which weights were measured.

    >>> weights_prefix("ema/modes"), weights_prefix("modes")
    ('ema/', '')
    """
    return metric[: len(metric) - len(bare_metric(metric))]


def evaluate_metrics(
    trainer: Trainer,
    *,
    samples: int | None = None,
    seed: int | None = None,
    replicates: int = 200,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Results:
    """Return every metric of the generator and its averages, with bootstrap intervals.

    Args:
        trainer: the run at the step to evaluate.
        samples: number of generated samples; ``evaluation_samples`` by default.
        seed: seed of the noise and of the bootstrap replicates; ``evaluation_seed`` by default.
        replicates: number of bootstrap replicates of each interval; 0 for no intervals.
        progress: called with the number of finished metrics and their total number.
    """
    seed = trainer.config.evaluation_seed if seed is None else seed
    measured, hashes = Evaluator(trainer).measures(samples, seed), trainer.problem.extractors()
    total, done = sum(len(measures) for measures in measured.values()), 0
    results: Results = {}
    for prefix, measures in measured.items():
        results[prefix] = {}
        for name, measure in measures.items():
            progress(done, total)
            results[prefix][name] = MetricResult.from_measure(
                measure,
                metric=name,
                weights=WEIGHTS[prefix],
                seed=seed,
                extractor_hash=hashes.get(measure.extractor, ""),
                replicates=replicates,
                generator=generator_for(seed, f"bootstrap {name}"),
            )
            done += 1
    return results


def read_results(path: Path) -> list[MetricResult]:
    """Return the results in an ``evaluation.json``.

    Raises:
        UsageError: the file is missing or holds no results.
    """
    try:
        results = parse_json(read_bytes(path, MAX_JSON_BYTES).decode())["results"]
        return [MetricResult.from_dict(result) for result in results]
    except UsageError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} holds no results ({type(error).__name__}). Give the evaluation.json that"
            " `saddlepoint evaluate` wrote."
        ) from error


def differences(
    results: Results, others: list[MetricResult]
) -> list[tuple[str, float, bool | None]]:
    """Return (metric, this − other, whether the intervals overlap) of every result in both.

    Raises:
        UsageError: they have no metric in common, or two results were not measured alike.
    """
    known = {(result.metric, result.weights): result for result in others}
    found = []
    for prefix, own in results.items():
        for name, result in own.items():
            if (name, result.weights) in known:
                between = difference(result, known[name, result.weights])
                found.append((prefix + name, between.value, between.overlap))
    if not found:
        raise UsageError(
            "The two evaluations have no metric in common; they belong to different problems."
        )
    return found


@dataclass(frozen=True)
class BestEvaluation:
    """The best evaluation of a run.

    Attributes:
        metric: the metric that was compared.
        step: step of the best evaluation.
        evaluations: (step, value) of all evaluations.
        checkpoint: file with the state of that step, or None.
    """

    metric: str
    step: int
    evaluations: list[tuple[int, float]]
    checkpoint: Path | None


def best_evaluation(run: RunDirectory, metric: str | None = None) -> BestEvaluation:
    """Return the best evaluation in a run's log.

    Args:
        run: the run.
        metric: the metric to compare; by default the one that selected the best checkpoint.

    Raises:
        UsageError: the run has no evaluation, or the metric has no direction.
    """
    trainer = Trainer(run.read_config())
    lines = [line for line in run.read_log() if line.get("metrics")]
    if not lines:
        raise UsageError(
            f"{run.path} has no evaluation yet. Train it further, or evaluate more often with"
            " evaluate_every."
        )
    name = metric if metric is not None else trainer.config.best_by
    evaluator = Evaluator(trainer)
    scores = [(line["step"], evaluator.score(line["metrics"], name)) for line in lines]
    step = min(scores, key=lambda pair: pair[1])[0]
    title = name if name is not None else "the problem's score (smaller is better)"
    shown = scores if name is None else [(line["step"], line["metrics"][name]) for line in lines]
    return BestEvaluation(title, step, shown, run.checkpoint_of(trainer.config, step))
