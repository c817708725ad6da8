"""Names of problems, rules and optimizers, and how to build each from a configuration.

To add one, add a row to ``names``, or to ``rules`` and ``recipes``. The tables hold import paths as
text, so that importing this package does not import torch.
"""

from saddlepoint.extras import needs

with needs("train", "saddlepoint.registry"):
    from saddlepoint.registry.build import (
        build_optimizer,
        build_problem,
        build_recipe_rule,
        build_rule,
        completed,
        find,
        load,
        optimizer_class,
        options_of,
    )
    from saddlepoint.registry.entries import Entry, OptimizerEntry, ProblemEntry, RuleEntry
    from saddlepoint.registry.names import OPTIMIZERS, PROBLEMS
    from saddlepoint.registry.recipes import OPTIMIZER_SPACES, RECIPES, Recipe, search_space
    from saddlepoint.registry.rules import RULES

__all__ = [
    "OPTIMIZERS",
    "OPTIMIZER_SPACES",
    "PROBLEMS",
    "RECIPES",
    "RULES",
    "Entry",
    "OptimizerEntry",
    "ProblemEntry",
    "Recipe",
    "RuleEntry",
    "build_optimizer",
    "build_problem",
    "build_recipe_rule",
    "build_rule",
    "completed",
    "find",
    "load",
    "optimizer_class",
    "options_of",
    "search_space",
]
