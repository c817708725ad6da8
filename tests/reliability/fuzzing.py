"""What is fuzzed: targets that take whatever Hypothesis draws, in the tests or for a fuzzer's
bytes, and end in a result or in a sentence.

Every target must return, raise nothing but the errors for a user (exit codes 0 to 3 on the command
line), and within twenty seconds.
"""

import contextlib
import copy
import gzip
import io
import json
import math
import os
import shutil
import signal
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st

from saddlepoint import registry
from saddlepoint.cli import main
from saddlepoint.compare import compare
from saddlepoint.compare.execution import execute, failed_result
from saddlepoint.compare.preflight import validate_study
from saddlepoint.compare.study import study_from_dict
from saddlepoint.data.idx import read_idx
from saddlepoint.diagnostics import History, diagnose
from saddlepoint.errors import DivergenceError, UsageError
from saddlepoint.io.checkpoint import FORMAT, with_checksum
from saddlepoint.io.limits import parse_json, parse_yaml
from saddlepoint.metrics import MetricResult
from saddlepoint.report import make_report
from saddlepoint.training import RunDirectory, Trainer
from saddlepoint.training.config import RunConfig, read_yaml, resolve, validate, with_settings
from saddlepoint.training.evaluator import differences, read_results
from saddlepoint.training.log_line import validate_line
from tests.reliability.databases import CHANGES, finished, go_on_with
from tests.reliability.strangers import archive, checkpoints, make_run, saved, state_of
from tests.report import synthetic

SECONDS = 20


class HangError(Exception):
    """A case took longer than any may."""


@contextlib.contextmanager
def judged() -> Iterator[None]:
    """Let the errors for a user pass; everything else, and a case without an end, is a finding."""

    def ring(_number: int, _frame: Any) -> None:
        raise HangError(f"more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UsageError, DivergenceError):
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@cache
def room() -> Path:
    """A directory for this process, with a run in it."""
    path = Path(tempfile.mkdtemp(prefix="fuzz-"))
    make_run(path / "run")
    shutil.copytree(path / "run", path / "kept")
    return path


# values that nobody expects

NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63, -(2**63), 10**13, 10**18, 10**30, 1 << 70]),
    st.floats(),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e308, 5e-324, -0.0]),
)
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "",
            "\0",
            "../x",
            "/etc/passwd",
            "<script>",
            "a" * 300,
            "\ud800",
            "generator",
            "adam",
            "torch.optim:SGD",
            "os:system",
            "1e5",
        ]
    ),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
JUNK = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of everything in a tree."""
    if path:
        yield path
    for key, inner in (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    ):
        yield from places(inner, (*path, key))


@st.composite
def mutated(draw: Any, make: Callable[[], Any], values: Any = JUNK) -> Any:
    """A tree with up to three changes: something else in a place, a place gone, a key more, or what
    stands elsewhere."""
    tree = copy.deepcopy(make())
    for _ in range(draw(st.integers(1, 3))):
        known = list(places(tree))
        if not known:
            return tree
        *parents, last = draw(st.sampled_from(known))
        place = tree
        for key in parents:
            place = place[key]
        way = draw(st.integers(0, 5))
        if way == 0:
            del place[last]
        elif way == 1 and isinstance(place, dict):
            place[draw(TEXTS)] = draw(values)
        elif way == 2:
            other = tree
            for key in draw(st.sampled_from(known)):
                other = (
                    other[key]
                    if isinstance(other, dict | list)
                    and key in (other if isinstance(other, dict) else range(len(other)))
                    else other
                )
            place[last] = copy.deepcopy(other)
        else:
            place[last] = draw(values)
    return tree


def damaged(content: bytes) -> Any:
    """Bytes that are cut, or have some changed, put in or taken out."""
    size = len(content)
    edits = st.lists(
        st.tuples(st.integers(0, size - 1), st.integers(0, 3), st.binary(min_size=1, max_size=4)),
        min_size=1,
        max_size=4,
    )

    def edit(changes: list[tuple[int, int, bytes]]) -> bytes:
        made = bytearray(content)
        for at, way, what in changes:
            made[at : at + (len(what) if way < 2 else 0)] = what if way != 3 else what * 50
            if way == 1:
                del made[at:]
        return bytes(made)

    return edits.map(edit)


# IDX


@st.composite
def idx_bytes(draw: Any) -> bytes:
    """An IDX file, more or less."""
    sizes = draw(
        st.lists(
            st.one_of(st.integers(0, 5), st.sampled_from([2**32 - 1, 2**28, 2**16])), max_size=5
        )
    )
    magic = draw(st.sampled_from([b"\0\0\x08", b"\0\0\x08", b"\0\0\x0d", b"\x1f\x8b\x08"]))
    count = draw(st.one_of(st.just(len(sizes)), st.integers(0, 255)))
    content = (
        magic
        + bytes([count])
        + b"".join(struct.pack(">I", size) for size in sizes)
        + draw(st.binary(max_size=40))
    )
    return gzip.compress(content) if draw(st.booleans()) else content


def fuzz_idx(content: bytes) -> None:
    """Files of data, plain and gzipped."""
    for name in ("a", "a.gz"):
        path = room() / name
        path.write_bytes(content)
        with judged():
            assert read_idx(path).nbytes <= len(content) * 1100


# YAML and configurations

TOKENS = st.sampled_from(
    [
        "a",
        "b: ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        ": ",
        "\n",
        "\n  ",
        "&a ",
        "*a",
        "<<: ",
        "!!int ",
        "!!python/object ",
        "'",
        '"',
        "|\n",
        "1e-3",
        "0x1f",
        "1:30",
        "~",
        "? ",
        "#",
        "%",
        "---",
        "\\ud800",
        "\t",
        ".inf",
        "2001-01-01",
    ]
)
YAML_TEXTS = st.one_of(st.text(max_size=40), st.lists(TOKENS, max_size=25).map("".join))


def fuzz_yaml(text: str) -> None:
    """Documents: plain values or a YAMLError."""
    with judged(), contextlib.suppress(yaml.YAMLError):
        assert len(json.dumps(parse_yaml(text))) < 1 << 24


NAMES = {
    "problem": (
        registry.PROBLEMS,
        [
            "loss",
            "latent",
            "hidden",
            "activation",
            "r1",
            "r2",
            "radius",
            "sigma",
            "modes",
            "features",
            "size",
            "grid",
            "output",
            "train_images",
            "data_dir",
        ],
    ),
    "rule": (
        registry.RULES,
        [
            "gamma",
            "beta",
            "k",
            "rule",
            "damping",
            "alpha",
            "strength",
            "solver",
            "budget",
            "tolerance",
            "rate",
            "keep_state",
            "rules",
            "samples",
            "radius",
        ],
    ),
    "optimizer": (
        registry.OPTIMIZERS,
        [
            "lr",
            "betas",
            "eps",
            "momentum",
            "weight_decay",
            "players",
            "nesterov",
            "fused",
            "foreach",
            "params",
            "average",
            "frequency",
        ],
    ),
}


@st.composite
def components(draw: Any, kind: str) -> Any:
    """A problem, rule or optimizer with options."""
    names, options = NAMES[kind]
    name = draw(st.one_of(st.sampled_from(sorted(names)), TEXTS))
    own = draw(
        st.dictionaries(
            st.sampled_from(options), st.one_of(JUNK, st.sampled_from(sorted(names))), max_size=3
        )
    )
    return draw(st.sampled_from([name, {"name": name, **own}, own, {"name": name}]))


@st.composite
def config_trees(draw: Any) -> Any:
    """A configuration, more or less."""
    tree = draw(
        st.dictionaries(
            st.one_of(st.sampled_from(sorted(RunConfig.model_fields)), TEXTS), JUNK, max_size=3
        )
    )
    for kind in NAMES:
        if draw(st.booleans()):
            tree[kind] = draw(components(kind))
    return tree


def fuzz_config(tree: Any) -> None:
    """Configurations: refused, or complete, and the same when they are written and read back."""
    try:
        json.dumps(tree, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # halves of characters, which no file and no argument can bring
        return
    with judged():
        config = resolve(tree)
        text = config.to_yaml()
        assert validate(parse_yaml(text)).digest() == config.digest()  # NaN is not equal to itself
        for player in ("discriminator", "generator"):
            weight = [("weight", torch.zeros(2, 2, requires_grad=True))]
            registry.build_optimizer(
                config.optimizer.name, weight, config.optimizer.options_for(player)
            )
    path = room() / "config.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8", errors="surrogatepass")
    with judged():
        validate(read_yaml(path))


def fuzz_settings(settings: list[str]) -> None:
    """What stands behind --set."""
    with judged():
        resolve(with_settings({"problem": "mixture8"}, settings))


SETTINGS = st.lists(
    st.tuples(
        st.lists(
            st.one_of(
                st.sampled_from(
                    ["rule", "optimizer", "problem", "lr", "players", "name", "seed", "steps"]
                ),
                st.text(max_size=3),
            ),
            max_size=4,
        ).map(".".join),
        st.sampled_from(["=", "", "=="]),
        YAML_TEXTS,
    ).map("".join),
    max_size=3,
)


# studies


def study_tree() -> Any:
    """A small study."""
    return {
        "name": "small", "seeds": 2, "baseline": "adam",
        "tuning": {"trials": 2, "seeds": [100], "finalists": 1, "final_seeds": [101]},
        "methods": {"adam": {}, "mine": {"rule": {"name": "cgd"}, "settings": {"batch_size": 8}, "space": {"optimizer.lr": {"log": [0.001, 0.1]}}}},
        "problems": [
            {"problem": {"name": "mixture8", "hidden": 4}, "budget": {"steps": 5}, "target": 2.0, "points": 2, "methods": ["adam", "mine"],
             "space": {"ratio": {"choices": [0.5, 1.0]}}, "robustness": {"factors": [0.1, 10.0], "seeds": 1}},
        ],
    }  # fmt: skip


def fuzz_study(tree: Any) -> None:
    """Studies: refused before anything runs, or every method can be built."""
    with judged():
        validate_study(study_from_dict(tree, "The study"))


# checkpoints

PIECES = st.sampled_from(
    [b"\x80\x02", b"}", b"]", b")", b"(", b"t", b"R", b"Q", b".", b"q\0", b"h\0", b"r\xff\xff\xff\xff", b"j\xff\xff\xff\xff", b"s", b"u", b"a", b"e", b"b", b"N", b"K\x03",
     b"J\xff\xff\xff\x7f", b"\x8a\x04\xff\xff\xff\x7f", b"\x8a\xff" + b"\x7f" * 255, b"G" + bytes(8), b"X\x07\0\0\0storage", b"X\x01\0\0\x000", b"X\x03\0\0\0cpu", b"X\xff\xff\xff\xff",
     b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"cos\nsystem\n", b"\x85", b"\x86", b"\x87", b"0", b"i", b"o", b"\x93", b"\x95", b"\x81",
     b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x03tQ", b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x03tQK\0K\x03\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"]
)  # fmt: skip
PICKLES = st.lists(st.one_of(PIECES, PIECES, st.binary(min_size=1, max_size=2)), max_size=20).map(
    lambda parts: b"\x80\x02" + b"".join(parts) + b"."
)


@cache
def small_checkpoint() -> bytes:
    """A small file of the kind."""
    return saved(
        {
            "format": FORMAT,
            "config": "x",
            "a": torch.arange(3.0),
            "b": [torch.zeros(2, dtype=torch.int64)],
            "c": (1, 2.5, None, "text"),
        }
    )


@st.composite
def checkpoint_bytes(draw: Any) -> bytes:
    """A checkpoint's file, more or less: damaged somewhere, or whole with a pickle of its own."""
    if draw(st.booleans()):
        return draw(damaged(small_checkpoint()))
    records = {"data.pkl": draw(PICKLES), "version": b"3\n", "data/0": bytes(12)}
    if draw(st.integers(0, 9)) == 0:
        records[draw(st.text(max_size=5))] = draw(st.binary(max_size=5))
    return archive(records, root=draw(st.sampled_from(["archive", "archive", "", "..", "/"])))


def fuzz_checkpoint(content: bytes) -> None:
    """Files of checkpoints."""
    run = room() / "run"
    for file in checkpoints(run):
        # anyone can make a checksum that fits
        file.write_bytes(with_checksum(content) if len(content) % 8 else content)
    with judged():
        RunDirectory.open(run).load_checkpoint(read_config())


@cache
def read_config() -> RunConfig:
    """The configuration of the run in the room."""
    return RunDirectory.open(room() / "kept").read_config()


@cache
def whole_state() -> Any:
    """A state that fits the run in the room."""
    return state_of(room() / "kept")


@cache
def training() -> Trainer:
    """A training of the run in the room."""
    return Trainer(read_config())


TENSORS = st.sampled_from(
    [torch.zeros(3), torch.zeros(8, 2), torch.tensor(5.0), torch.zeros(0), torch.full((8,), math.nan), torch.zeros(1).expand(10**9), torch.zeros(2, dtype=torch.int64),
     torch.zeros(8, 2, dtype=torch.float64), torch.zeros(2, 8).T, torch.zeros(3, dtype=torch.complex64), torch.ones(1, requires_grad=True).detach().requires_grad_()]
)  # fmt: skip
STATES = mutated(whole_state, st.one_of(JUNK, TENSORS))


def fuzz_state(state: Any) -> None:
    """States of checkpoints: refused, or two steps are taken with them."""
    with judged():
        made = Trainer(read_config())
        made.load_state_dict(state)
        made.train_step()
        made.train_step()
        made.trace.take()
        json.dumps(made.metrics)


# logs, results and what reports read


@cache
def log_lines() -> list[Any]:
    """The lines of the run in the room, and one of each other kind."""
    lines = [
        json.loads(line) for line in (room() / "kept" / "metrics.jsonl").read_text().splitlines()
    ]
    divergence = {
        "step": 9,
        "message": "x",
        "place": "loss",
        "player": "generator",
        "tensor": "w",
        "share": 0.5,
        "largest": None,
        "description": "It is.",
    }
    lines.append(
        {
            "step": 9,
            "seconds": 1.0,
            "rollback": {
                "number": 1,
                "failed_step": 9,
                "lr_factor": 0.5,
                "divergence": divergence,
            },
        }
    )
    lines.append({"step": 10, "seconds": 1.0, "divergence": divergence})
    return lines


def fuzz_log(lines: Any) -> None:
    """Logs, as resuming and the checks read them."""
    with judged():
        try:
            text = (
                [json.dumps(line) for line in lines]
                if isinstance(lines, list)
                else [json.dumps(lines)]
            )
            read = [parse_json(line) for line in text]
        except UnicodeEncodeError:
            return
        except ValueError:
            return
        checked = [validate_line(line, "here") for line in read]
        problem = training().problem
        diagnose(History(loss=problem.loss, coverage=problem.coverage_metric, lines=checked))


@cache
def page_sources() -> dict[str, Any]:
    """file → its content, of a run and of a comparison."""
    run = synthetic.run(room() / "page-run")
    other = synthetic.comparison(
        room() / "page-comparison",
        methods=("adam", "sign"),
        problems=("a",),
        seeds=2,
        pictures=False,
    )
    found = {
        name: json.loads((run / name).read_text())
        for name in ("summary.json", "evaluation.json", "diagnosis.json", "environment.json")
    }
    found["config.yaml"] = yaml.safe_load((run / "config.yaml").read_text())
    found["metrics.jsonl"] = [
        json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
    ][-3:]
    found["comparison.json"] = json.loads((other / "comparison.json").read_text())
    return found


@st.composite
def pages(draw: Any) -> tuple[str, Any]:
    """One file that a report reads, changed."""
    name = draw(st.sampled_from(sorted(page_sources())))
    return name, draw(mutated(lambda: page_sources()[name]))


def fuzz_report(changed: tuple[str, Any]) -> None:
    """Reports: refused, or a page whose data is JSON and whose names are text."""
    name, content = changed
    path = room() / ("page-comparison" if name == "comparison.json" else "page-run") / name
    before = path.read_bytes()
    text = (
        "\n".join(json.dumps(line) for line in content)
        if name.endswith("l") and isinstance(content, list)
        else json.dumps(content)
    )
    path.write_text(text)
    try:
        with judged():
            html = make_report(path.parent)
            html.encode()
            assert html.count("<script") == 3
            json.loads(html.split('id="data">')[1].split("</script>")[0])
    finally:
        path.write_bytes(before)


def result_tree() -> Any:
    """An evaluation with two results."""
    return synthetic.evaluation()


def fuzz_results(tree: Any) -> None:
    """Evaluations to compare with."""
    path = room() / "evaluation.json"
    path.write_text(json.dumps(tree))
    own = {"ema/": {"quality": MetricResult.from_dict(synthetic.result("quality", "ema", 0.9))}}
    with judged():
        differences(own, read_results(path))


# comparisons to go on from


@cache
def finished_comparison() -> tuple[Any, Any]:
    """A tiny study and its finished comparison."""
    tree = {
        "name": "tiny", "seeds": 2, "methods": ["adam", "sign"],
        "problems": [{"problem": {"name": "mixture8", "hidden": 4, "latent": 2}, "budget": {"steps": 2}, "points": 1, "target": 2.0,
                      "settings": {"batch_size": 4, "evaluation_samples": 160, "lr_schedule": "constant"}}],
    }  # fmt: skip
    study = study_from_dict(tree, "The study")
    threads = torch.get_num_threads()
    compare(study, room() / "tiny", execute=lambda job, beat: execute(job))
    torch.set_num_threads(threads)
    shutil.rmtree(room() / "tiny" / "runs")
    return study, json.loads((room() / "tiny" / "comparison.json").read_text())


def fuzz_comparison(tree: Any) -> None:
    """Finished comparisons that a stranger changed, to go on from."""
    study, _ = finished_comparison()
    path = room() / "tiny" / "comparison.json"
    path.write_text(json.dumps(tree))
    shutil.rmtree(room() / "tiny" / "runs", ignore_errors=True)
    with judged():
        compare(
            study,
            path.parent,
            execute=lambda job, beat: {**failed_result("made again"), "steps": 1},
        )


# the command line

WORDS = st.one_of(
    st.sampled_from(["run", "-n", "-o", "--output", "--seed", "--best", "--raw", "--steps", "--seconds", "--samples", "--replicates", "--against", "--at", "--spectrum", "--metric", "--rule",
                     "--optimizer", "--lr", "--batch-size", "--device", "--config", "--set", "--out", "--data-dir", "--methods", "--method", "--seeds", "--budget", "--trials", "--target", "--baseline",
                     "--jobs", "--storage", "--loss", "--r1", "--help", "--", "-", "--no-such", "mixture8", "digits", "mnist", "last", "best", "cuda", "cgd", "sgd", "adam,sign", "gradient+", "ema/modes",
                     "seconds=1", "steps=x", "=", "rule.k=3", "problem.hidden=-1", "a.b.c.d=[", "optimizer.betas=[1]", "torch.optim:SGD", "os:system", "nothing:x", "out.png", "/dev/null", "missing/x", "evaluation.json", "study.yaml"]),
    st.sampled_from(["-1", "0", "1", "3", "1.5", "nan", "inf", "1e400", "10000000000000", "9" * 30, "9" * 5000, "+1", "+-1", "1_0", "٣"]),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6),
)  # fmt: skip
TINY = [
    "--steps",
    "1",
    "--set",
    "problem.hidden=4",
    "--set",
    "evaluation_samples=160",
    "--set",
    "batch_size=4",
]


@st.composite
def command_lines(draw: Any) -> list[str]:
    """A command with words behind it."""
    command = draw(
        st.sampled_from(
            [
                "train",
                "resume",
                "sample",
                "evaluate",
                "diagnose",
                "best",
                "report",
                "compare",
                "tune",
                "list",
                "doctor",
                "",
                "nothing",
            ]
        )
    )
    start = {
        "train": ["mixture8", *TINY],
        "doctor": ["nothing:x"],
        "evaluate": ["--replicates", "0"],
    }.get(command, [])
    if command in ("resume", "sample", "evaluate", "diagnose", "best", "report") and draw(
        st.booleans()
    ):
        start = ["run", *start]
    return [command, *start, *draw(st.lists(WORDS, max_size=4))]


def only_checked(study: Any, *_: Any, **__: Any) -> None:
    """Stands for a comparison: what can be known before it starts."""
    validate_study(study)
    raise UsageError("Nothing is run here.")


def fuzz_cli(words: list[str]) -> None:
    """Command lines: exit codes 0 to 3, and never a traceback."""
    import saddlepoint.compare

    made = room() / "cli"
    if not (made / "run").is_dir() or len(list(made.iterdir())) > 20:
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(room() / "kept", made / "run")
    here, kept = os.getcwd(), (saddlepoint.compare.compare, saddlepoint.compare.tune_method)
    out, err = io.StringIO(), io.StringIO()
    os.chdir(made)
    trust = os.environ.pop("SADDLEPOINT_TRUST", None)
    try:
        saddlepoint.compare.compare = saddlepoint.compare.tune_method = only_checked
        with judged(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code: Any = 0
            try:
                main(words)
            except SystemExit as ended:
                code = ended.code
            assert code in (None, 0, 1, 2, 3), (code, words)
        assert "Traceback" not in out.getvalue() + err.getvalue()
    finally:
        saddlepoint.compare.compare, saddlepoint.compare.tune_method = kept
        os.chdir(here)
        os.environ.pop("SADDLEPOINT_TRUST", None)
        if trust is not None:
            os.environ["SADDLEPOINT_TRUST"] = trust
        sys.stdout.flush()


# searches


def fuzz_search(case: Any) -> None:
    """A search that goes on in a database of another program, or a damaged one."""
    with judged():
        go_on_with(case)


TARGETS: dict[str, tuple[Callable[[Any], None], Any, int]] = {
    "idx": (fuzz_idx, st.one_of(st.binary(max_size=64), idx_bytes()), 300),
    "yaml": (fuzz_yaml, YAML_TEXTS, 400),
    "config": (fuzz_config, config_trees(), 300),
    "settings": (fuzz_settings, SETTINGS, 200),
    "study": (fuzz_study, mutated(study_tree), 60),
    "checkpoint": (fuzz_checkpoint, checkpoint_bytes(), 300),
    "state": (fuzz_state, STATES, 100),
    "log": (fuzz_log, mutated(log_lines), 200),
    "results": (fuzz_results, mutated(result_tree), 200),
    "report": (fuzz_report, pages(), 40),
    "comparison": (fuzz_comparison, mutated(lambda: finished_comparison()[1]), 40),
    "search": (
        fuzz_search,
        st.one_of(CHANGES, st.deferred(lambda: damaged(finished().read_bytes()))),
        60,
    ),
    "command line": (fuzz_cli, command_lines(), 80),
}
"""name → what takes a case, what draws it, and how many are taken in the tests."""
