"""Which runs a study consists of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saddlepoint.compare.configuration import configuration
from saddlepoint.compare.execution import Job
from saddlepoint.compare.provenance import inputs_of
from saddlepoint.compare.study import ProblemPlan, Study, digest, slug
from saddlepoint.training.config import RunConfig, Tree, validate


@dataclass(frozen=True)
class Place:
    """Where one run belongs.

    Attributes:
        problem, method: their names.
        seed: of the run.
        factor: what the tuned learning rates are multiplied by; 1 for the reported runs, others for
            the robustness map.
    """

    problem: str
    method: str
    seed: int
    factor: float = 1.0

    @property
    def run(self) -> str:
        """The run's name among those of its problem and method."""
        return f"seed-{self.seed}" if self.factor == 1 else f"seed-{self.seed}-rate-{self.factor:g}"

    @property
    def path(self) -> Path:
        """Where it lies below ``runs`` and ``pictures``, without ending."""
        return Path(slug(self.problem)) / slug(self.method) / self.run


def jobs_of(
    study: Study, plan: ProblemPlan, method: str, parameters: Tree
) -> Iterator[tuple[Place, Job]]:
    """Yield the runs of a method at its tuned parameters: the reported ones, then those of the robustness map.

    Only reported runs are followed in all metrics, and of the first seed pictures are kept.
    """
    for seed in range(study.seeds):
        config = configuration(plan, study.methods[method], parameters, seed=seed)
        job = Job(
            config.model_dump(mode="json"),
            plan.metric,
            plan.points,
            everything=True,
            pictures=seed == 0,
        )
        yield Place(plan.name, method, seed), job
    for factor in plan.robustness.factors if plan.robustness else ():
        for seed in mapped_seeds(study, plan):
            if factor != 1:
                config = configuration(plan, study.methods[method], parameters, seed=seed)
                yield (
                    Place(plan.name, method, seed, factor),
                    Job(_scaled(config, factor), plan.metric, 1),
                )


def mapped_seeds(study: Study, plan: ProblemPlan) -> range:
    """Return the seeds of a problem's robustness map."""
    return range(min(plan.robustness.seeds, study.seeds)) if plan.robustness else range(0)


def key_of(job: Job) -> str:
    """Return the key of everything of the user's that decides a run: its configuration, what is measured, and the files that it reads.

    Versions are not part of it: an outcome says itself what it was made with.
    """
    config = validate(job.config)
    return digest({**asdict(job), "config": config.non_defaults(), **inputs_of(config)})


def _scaled(config: RunConfig, factor: float) -> Tree:
    """Return a configuration with both players' learning rates multiplied."""
    tree: dict[str, Any] = config.model_dump(mode="json")
    optimizer = tree["optimizer"]
    optimizer["lr"] *= factor
    for own in optimizer["players"].values():
        if "lr" in own:
            own["lr"] *= factor
    return tree
