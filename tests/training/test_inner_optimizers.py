"""Anybody's optimizer: it trains, resumes and is measured where it should be, or says why it cannot
before a run is made."""

import sys
import warnings
from pathlib import Path

import pytest
import torch
from pytorch_optimizer import ScheduleFreeAdamW

import saddlepoint as sp
from saddlepoint.cli import main
from saddlepoint.io.checkpoint import decode, encode
from saddlepoint.problems.base import GENERATOR
from saddlepoint.training import Evaluator, Trainer, resolve
from saddlepoint.training.inner_optimizers import check_resumable

SMALL = {"problem": {"name": "mixture8", "hidden": 8}, "evaluation_samples": 160, "steps": 8}
MODULE = """
import torch

class Base(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.add_(p.grad, alpha=-group["lr"])

class NeedsClosure(Base):
    def step(self, closure):
        closure()

class NoRate(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})

    step = Base.step

class Raises(Base):
    def step(self, closure=None):
        raise ZeroDivisionError("by the optimizer")

class KeepsObjects(Base):
    def step(self, closure=None):
        super().step()
        self.state[self.param_groups[0]["params"][0]]["kept"] = {1, 2}

class Forgets(Base):
    taken = 0

    def step(self, closure=None):
        self.taken += 1
        self.param_groups[0]["lr"] = 0.1 / self.taken
        super().step()

class Swallows(Base):
    def __init__(self, params, lr=0.1, **options):
        super().__init__(params, lr)

class NoOptimizer:
    pass

def function(params, lr=0.1):
    return Base(params, lr)
"""


@pytest.fixture
def anybodys(tmp_path, monkeypatch):
    """Return the name of a module in the current directory with optimizers of many kinds."""
    monkeypatch.chdir(tmp_path)
    Path("anybodys_optimizers.py").write_text(MODULE)
    yield "anybodys_optimizers"
    sys.modules.pop("anybodys_optimizers", None)


def training(optimizer, **options):
    return Trainer(resolve({**SMALL, "optimizer": {"name": optimizer, **options}}))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NeedsClosure", "TypeError: Base.step() missing 1 required positional argument"),
        ("NoRate", 'no number "lr" in its parameter groups'),
        ("Raises", "ZeroDivisionError: by the optimizer"),
        ("KeepsObjects", "its state cannot be saved and loaded again"),
        ("NoOptimizer", "is not a subclass of torch.optim.Optimizer"),
        ("function", "is not a subclass of torch.optim.Optimizer"),
        ("Nothing", "has no attribute 'Nothing'"),
    ],
)
def test_one_that_cannot_work_says_why_and_leaves_nothing(anybodys, capsys, name, said):
    with pytest.raises(SystemExit) as caught:
        main(["train", "mixture8", "--steps", "4", "--optimizer", f"{anybodys}:{name}"])
    assert caught.value.code == 2
    assert said.replace("Base.step()", f"{name}.step()") in capsys.readouterr().err
    assert [path.name for path in Path().iterdir() if path.name != "__pycache__"] == [
        "anybodys_optimizers.py"
    ]


def test_one_of_the_current_directory_works_and_shadows_nothing(anybodys, capsys):
    Path("random.py").write_text("raise RuntimeError('the wrong one')")
    before = list(sys.path)
    with pytest.raises(SystemExit) as caught:
        main(
            ["train", "mixture8", "--steps", "2", "--optimizer", f"{anybodys}:Base", "--out", "run"]
        )
    assert caught.value.code == 0, capsys.readouterr().err
    assert sys.path == before


def test_an_option_that_it_swallows_is_refused(anybodys, monkeypatch):
    monkeypatch.setenv("SADDLEPOINT_TRUST", anybodys)
    with pytest.raises(sp.UsageError, match='ignores the option "momentun"'):
        training(f"{anybodys}:Swallows", momentun=0.9)


def test_one_that_does_not_resume_exactly_is_told_of(anybodys, monkeypatch):
    monkeypatch.setenv("SADDLEPOINT_TRUST", anybodys)
    with pytest.warns(UserWarning, match="can be resumed, but not exactly"):
        check_resumable(training(f"{anybodys}:Forgets"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_resumable(training(f"{anybodys}:Base"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torch.optim:SparseAdam", "does not support dense gradients"),
        ("torch.optim:LBFGS", "missing 1 required positional argument: 'closure'"),
        ("pytorch_optimizer:SophiaH", "does not require grad"),
        ("pytorch_optimizer:AdaHessian", "does not require grad"),
        ("pytorch_optimizer:AliG", 'no number "lr"'),
        ("pytorch_optimizer:SAM", "base_optimizer"),
        ("pytorch_optimizer:LOMO", "cannot be constructed from a list of parameters"),
    ],
)
def test_published_ones_that_cannot_work(name, said):
    with pytest.raises(sp.UsageError, match=said):
        training(name)


SCHEDULE_FREE = ["ScheduleFreeAdamW", "ScheduleFreeSGD", "ScheduleFreeRAdam", "SPlus"]


@pytest.mark.parametrize("name", [*SCHEDULE_FREE, "MADGRAD", "EmoNavi", "AvaGrad", "DAdaptAdan"])
def test_a_resumed_run_is_the_straight_one(name):
    straight = training(f"pytorch_optimizer:{name}", lr=0.01)
    for _ in range(3):
        straight.train_step()
    state = decode(encode(straight.state_dict()))
    resumed = training(f"pytorch_optimizer:{name}", lr=0.01)
    resumed.load_state_dict(
        {key: value for key, value in state.items() if key not in ("format", "saddlepoint")}
    )
    Evaluator(straight).evaluate()  # changes nothing
    for _ in range(3):
        straight.train_step(), resumed.train_step()
    for player, network in straight.networks.items():
        for a, b in zip(network.parameters(), resumed.networks[player].parameters(), strict=True):
            assert torch.equal(a, b)
    assert Evaluator(straight).evaluate() == Evaluator(resumed).evaluate()


def test_a_schedule_free_one_is_measured_at_its_average():
    run = training("pytorch_optimizer:ScheduleFreeAdamW", lr=0.01)
    for _ in range(4):
        run.train_step()
    network = run.networks[GENERATOR]
    trained_at = [p.detach().clone() for p in network.parameters()]
    inner = run.optimizer.optimizers[GENERATOR]
    assert isinstance(inner, ScheduleFreeAdamW)
    beta = inner.param_groups[0]["betas"][0]
    # x of y = (1 − β) z + β x
    averaged = [
        (p + (inner.state[p]["z"] - p) * (1 - 1 / beta)).detach() for p in network.parameters()
    ]

    metrics, picture, state = (
        Evaluator(run).evaluate(),
        Evaluator(run).picture(ema=False),
        run.state_dict(),
    )
    for p, before in zip(network.parameters(), trained_at, strict=True):
        assert torch.equal(p, before)  # measuring moves nothing
    with torch.no_grad():
        for p, value in zip(network.parameters(), averaged, strict=True):
            assert not torch.allclose(p, value)
            p.copy_(value)
    saved = [state["networks"][GENERATOR][name] for name, _ in network.named_parameters()]
    for value, kept, before, kept_before in zip(
        averaged, saved, trained_at, state["iterates"][GENERATOR], strict=True
    ):
        assert torch.allclose(value, kept)
        assert torch.equal(before, kept_before)
    inner.param_groups[0]["train_mode"] = False  # it is there already
    expected = run.problem.metrics(run.problem.generate(network, 160, 0, "evaluation"))
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    drawn = run.problem.picture(run.problem.generate(network, 64, 0, "samples"))
    assert picture.size == drawn.size


def test_rules_that_move_parameters_themselves_do_not_go_with_it():
    with pytest.raises(
        sp.UsageError, match="averages its own iterates, and so does the rule Lookahead"
    ):
        Trainer(
            resolve(
                {
                    **SMALL,
                    "rule": "lookahead",
                    "optimizer": {"name": "pytorch_optimizer:ScheduleFreeAdamW"},
                }
            )
        )
