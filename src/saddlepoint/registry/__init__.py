"""Names of problems, rules and optimizers, and how to build each from a configuration.

Adding one is one row in ``names`` or ``rules``. Paths are text, so that listing names loads no
torch.
"""

from saddlepoint.extras import needs

with needs("train", "saddlepoint.registry"):
    from saddlepoint.registry.build import (
        build_optimizer,
        build_problem,
        build_rule,
        completed,
        find,
        load,
        optimizer_class,
        options_of,
    )
    from saddlepoint.registry.entries import Entry, OptimizerEntry, ProblemEntry, RuleEntry
    from saddlepoint.registry.names import OPTIMIZERS, PROBLEMS
    from saddlepoint.registry.rules import RULES

__all__ = [
    "OPTIMIZERS",
    "PROBLEMS",
    "RULES",
    "Entry",
    "OptimizerEntry",
    "ProblemEntry",
    "RuleEntry",
    "build_optimizer",
    "build_problem",
    "build_rule",
    "completed",
    "find",
    "load",
    "optimizer_class",
    "options_of",
]
