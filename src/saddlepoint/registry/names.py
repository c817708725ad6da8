"""Problems and optimizers by name."""

from __future__ import annotations

from saddlepoint.registry.entries import OptimizerEntry, ProblemEntry, ttur

_MODES = "ema/mode_distance"
_ADAM_ON_MIXTURES = {
    "optimizer": {"name": "adam", **ttur(4e-3, 2e-3)},
    "lr_schedule": "linear",
    "batch_size": 128,
}

PROBLEMS: dict[str, ProblemEntry] = {
    "digits": ProblemEntry(
        "saddlepoint.problems:Digits", "10,000 embedded handwritten digits, 28 x 28, MLP GAN"
    ),
    "mnist": ProblemEntry(
        "saddlepoint.problems:Mnist",
        "the full MNIST from your files (--data-dir), MLP GAN",
    ),
    "digits-binary": ProblemEntry(
        "saddlepoint.problems:DigitsBinary",
        "binary digits; generator without gradients, for --rule per-player",
    ),
    "stacked-digits": ProblemEntry(
        "saddlepoint.problems:StackedDigits",
        "three digits in red, green and blue, 1,000 modes; small convolutional GAN",
        loss="non-saturating",
        metric="ema/reverse_kl",
    ),
    "mixture8": ProblemEntry(
        "saddlepoint.problems:Mixture8",
        "2-D ring of 8 Gaussians",
        metric=_MODES,
        method=_ADAM_ON_MIXTURES,
    ),
    "mixture8-saturated": ProblemEntry(
        "saddlepoint.problems:Mixture8Saturated",
        "the same ring with a pre-trained discriminator: vanishing gradients",
        loss="minimax",
        metric=_MODES,
        method={
            "rule": {"name": "extragradient"},
            "optimizer": {"name": "adam", "lr": 6e-3, "betas": [0.9, 0.999]},
            "lr_schedule": "linear",
            "batch_size": 128,
        },
    ),
    "mixture25": ProblemEntry(
        "saddlepoint.problems:Mixture25",
        "2-D grid of 5 x 5 Gaussians",
        metric=_MODES,
        method=_ADAM_ON_MIXTURES,
    ),
    "mixture1d": ProblemEntry(
        "saddlepoint.problems:Mixture1d",
        "1-D mixture of 2 Gaussians, deterministic (full batch), for Newton methods",
        loss="minimax",
        metric="wasserstein",
        method={
            "rule": {
                "name": "newton",
                "part": "full",
                "damping": 0.0,
                "adapt": False,
                "max_iter": 30,
            },
            "optimizer": {"name": "sgd", "lr": 1.0},
            "steps": 20,
        },
    ),
}

_ADAM = {**ttur(2e-3, 1e-3), "betas": [0.0, 0.999], "fused": True}

OPTIMIZERS: dict[str, OptimizerEntry] = {
    "adam": OptimizerEntry(
        "torch.optim:Adam", "Adam without momentum, discriminator at half the rate", _ADAM
    ),
    "adamw": OptimizerEntry("torch.optim:AdamW", "the same with decoupled weight decay", _ADAM),
    "rmsprop": OptimizerEntry("torch.optim:RMSprop", "RMSProp", {"lr": 3e-4}),
    "sgd": OptimizerEntry("torch.optim:SGD", "stochastic gradient descent", {"lr": 0.1}),
    "momentum-sgd": OptimizerEntry(
        "saddlepoint.optim:MomentumSGD", "gradient descent with negative momentum", {"lr": 0.05}
    ),
    "sign": OptimizerEntry(
        "saddlepoint.optim:SignSubgradient",
        "fixed step against the sign of the gradient, decaying",
        ttur(3e-3, 1e-3),
        lr_schedule="linear",
    ),
    "signum": OptimizerEntry(
        "saddlepoint.optim:SignSubgradient",
        "the sign of a running mean of gradients, decaying",
        {**ttur(1e-3, 5e-4), "momentum": 0.9},
        lr_schedule="linear",
    ),
    "normalized": OptimizerEntry(
        "saddlepoint.optim:NormalizedSubgradient",
        "a step of fixed length along the gradient, decaying",
        ttur(0.1, 0.05),
        lr_schedule="linear",
    ),
    "grafted": OptimizerEntry(
        "saddlepoint.optim:Grafted",
        "as far as Adam would go, along the gradient",
        {**ttur(2e-3, 1e-3), "options": {"betas": [0.0, 0.999]}},
    ),
    "soap": OptimizerEntry(
        "saddlepoint.optim:SOAP",
        "Adam in the eigenbasis of each tensor's second moments, sides of at most 512: curvature"
        " per player",
        {**ttur(1e-2, 5e-3), "betas": [0.0, 0.95], "weight_decay": 0.0, "max_dimension": 512},
        lr_schedule="linear",
    ),
    "subgradient": OptimizerEntry(
        "saddlepoint.optim:Subgradient",
        "steps of c/√t (also c, c/t, Polyak's), suffix average; projections and proximal maps",
        {"lr": 1.0, "average": "suffix"},
    ),
    "random-coordinate": OptimizerEntry(
        "saddlepoint.optim:RandomCoordinate",
        "gradient descent on half of the coordinates, drawn anew",
        {"lr": 0.1},
    ),
}
