"""Checkpoints of a stranger's making: nothing in them is executed, and nothing in them ends in a
traceback."""

import contextlib
import copy
import io
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
import torch

import saddlepoint as sp
from saddlepoint.io.checkpoint import InvalidCheckpointError, load_payload, with_checksum
from saddlepoint.training import RunDirectory, Trainer
from tests.reliability.strangers import (
    archive,
    checkpoints,
    command,
    make_run,
    payloads,
    replace_checkpoints,
    saved,
    state_of,
)
from tests.training.conftest import small

KINDS = sorted(payloads(Path("witness")))
COMMANDS = {
    "resume": ["resume", "run", "--steps", "+2"],
    "sample": ["sample", "run"],
    "sample --best": ["sample", "run", "--best"],
    "evaluate": ["evaluate", "run"],
    "diagnose": ["diagnose", "run"],
    "diagnose --at": ["diagnose", "run", "--at", "best"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "run"
    return path, make_run(path)


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    """A run of one's own in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    shutil.copytree(made[0], "run")
    return Path("run")


def contents(run):
    """What lies in a run, but for the file of its lock, which says who had it last."""
    return {
        path: path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


class TestNoPickleIsExecuted:
    @pytest.mark.parametrize("kind", KINDS)
    def test_by_any_command(self, run, tmp_path, capsys, kind):
        witness = tmp_path / "witness"
        replace_checkpoints(run, payloads(witness)[kind])
        before = contents(run)
        for words in COMMANDS.values():
            code, _, err = command(capsys, *words)
            assert code == 2
            assert err.startswith("Error: Checkpoint run/checkpoints/")
            assert "Traceback" not in err
            assert not witness.exists()
        assert contents(run) == before  # a refusal leaves no trace

    @pytest.mark.parametrize("kind", KINDS)
    def test_by_what_looks_for_the_best(self, run, tmp_path, capsys, kind):
        for file in checkpoints(run):
            if file.name != "best.pt":
                file.unlink()
        replace_checkpoints(run, payloads(tmp_path / "witness")[kind])
        code, _, err = command(capsys, "best", "run")
        assert (code, err[:30]) == (2, "Error: Checkpoint run/checkpoi")
        assert not (tmp_path / "witness").exists()

    @pytest.mark.parametrize(
        "kind", ["reduce", "os.system", "eval", "exec", "legacy format", "bare pickle"]
    )
    def test_and_the_payloads_are_live(self, tmp_path, kind):
        """Whoever does execute them makes the witness: else the tests above would prove nothing."""
        witness = tmp_path / "witness"
        # what follows the payload is not what PyTorch expects
        with contextlib.suppress(RuntimeError):
            torch.load(io.BytesIO(payloads(witness)[kind]), weights_only=False)
        assert witness.exists()

    def test_each_is_refused_before_pytorch_sees_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
        for content in payloads(tmp_path / "witness").values():
            with pytest.raises(InvalidCheckpointError):
                load_payload(io.BytesIO(content))


def read(content):
    return load_payload(io.BytesIO(content))


class TestTheArchive:
    plain = saved({"a": torch.arange(3.0), "b": {"c": (1, 2.5, None, True, "text", [7] * 3)}})

    def test_what_torch_saves_is_read(self):
        found = read(self.plain)
        assert found["a"].tolist() == [0.0, 1.0, 2.0]
        assert found["b"] == {"c": (1, 2.5, None, True, "text", [7, 7, 7])}
        views = torch.zeros(4, dtype=torch.float64)
        shared = read(
            saved(
                {
                    "x": views,
                    "y": views[1:3],
                    "z": torch.zeros(0),
                    "n": 2**40,
                    "m": -(2**70),
                    "t": torch.tensor(True),
                }
            )
        )
        assert (shared["y"].shape, shared["n"], shared["m"]) == ((2,), 2**40, -(2**70))

    def test_a_compressed_record(self):
        records = {"data.pkl": b"\x80\x02}.", "version": b"3\n"}
        assert read(archive(records)) == {}
        with pytest.raises(InvalidCheckpointError, match="'data/0' belongs to no tensor"):
            read(archive({**records, "data/0": bytes(1 << 20)}))
        with pytest.raises(InvalidCheckpointError, match="is compressed or encrypted"):
            read(archive(records, compression=zipfile.ZIP_DEFLATED))

    def test_a_memory_that_is_longer_than_its_record(self):
        """Older versions of PyTorch read beyond the record's end; its length is a number in the
        pickle."""
        longer = self.plain.replace(b"K\x03tq", b"K\x7ftq")
        assert longer != self.plain
        records = self._records(self.plain)
        records["data.pkl"] = records["data.pkl"].replace(b"K\x03tq", b"K\x7ftq")
        with pytest.raises(
            InvalidCheckpointError, match=r"a tensor storage of 508 bytes is in a record of 12"
        ):
            read(archive(records))

    def test_a_shape_beyond_the_memory(self):
        records = self._records(self.plain)
        huge = records["data.pkl"].replace(b"K\x00K\x03\x85", b"K\x00J\xff\xff\xff\x7f\x85")
        assert huge != records["data.pkl"]
        with pytest.raises(RuntimeError):  # PyTorch's own
            read(archive(records | {"data.pkl": huge}))

    @pytest.mark.parametrize("where", ["before", "behind"])
    def test_bytes_that_are_in_no_record(self, where):
        with pytest.raises(InvalidCheckpointError):
            read(b"x" * 100 + self.plain if where == "before" else self.plain + b"x" * 100)

    def test_a_second_table_of_records(self):
        """A reader that follows the locator would find other records than one that does not."""
        content = bytearray(self.plain)
        at = content.rindex(b"PK\6\7")
        content[at + 8 : at + 16] = struct.pack("<Q", 0)
        with pytest.raises(InvalidCheckpointError, match="central directory is not at"):
            read(bytes(content))

    def test_names_of_records(self):
        for records in (
            {"../data.pkl": b"\x80\x02}."},
            {"data.pkl": b""},
            {"other.pkl": b"\x80\x02}."},
        ):
            with pytest.raises(InvalidCheckpointError, match=r"no data\.pkl"):
                read(archive(records))

    @pytest.mark.parametrize(
        ("pickle", "text"),
        [
            # allowed by PyTorch: 2 GiB
            (
                b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
                r"refers to builtins\.bytearray",
            ),
            (b"\x80\x02ctorch\nSize\n)R.", r"refers to torch\.Size"),
            (b"\x80\x02ctorch._utils\n_rebuild_wrapper_subclass\n)R.", "_rebuild_wrapper_subclass"),
            (b"\x80\x04}.", "protocol 4"),
            (b"\x80\x02X\x01\x00\x00\x00aQ.", "in an unknown form"),
            (
                b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x04\x00\x00\x00metaK\x01tQ.",
                "unknown device",
            ),
            (
                b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x02\x00\x00\x00..X\x03\x00\x00\x00cpuK\x01tQ.",
                "in an unknown form",
            ),
            (
                b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuJ\xff\xff\xff\xfftQ.",
                "in an unknown form",
            ),
            (b"\x80\x02i", "STRING|INST|not a zip archive"),
            (b"\x80\x02" + b"(" * 100 + b".", "IndexError|."),
        ],
    )
    def test_pickles(self, pickle, text):
        with pytest.raises(Exception, match=text) as caught:
            read(archive({"data.pkl": pickle, "version": b"3\n"}))
        assert not isinstance(caught.value, MemoryError | RecursionError)

    @staticmethod
    def _records(content):
        with zipfile.ZipFile(io.BytesIO(content)) as found:
            return {name.partition("/")[2]: found.read(name) for name in found.namelist()}


def at(state, *path):
    for key in path[:-1]:
        state = state[key]
    return state, path[-1]


def put(value, *path):
    """A change of a state: another value at a place."""

    def change(state):
        place, key = at(state, *path)
        place[key] = value(place[key]) if callable(value) else value

    return change


def drop(*path):
    def change(state):
        place, key = at(state, *path)
        del place[key]

    return change


WEIGHT = ("networks", "generator", "layers.1.weight")
ADAM = ("optimizer", "optimizers", "generator")
ALIASED = [0.0] * 1000
for _ in range(5):
    ALIASED = [ALIASED] * 1000


def remembered(what, value):
    """Return a change that puts a value into what the rule remembers of the generator's first
    weight."""

    def change(state):
        name = next(
            name
            for name, shape, _ in state["optimizer"]["parameters"]["generator"]
            if len(shape) == 2
        )
        state["optimizer"]["rule_state"]["parameters"] = {"generator": {name: {what: value}}}

    return change


CHANGES = {
    "a step that is text": (put("12", "step"), "step is '12' instead of a count"),
    "a step that is negative": (put(-3, "step"), "step is -3"),
    "a step that is a flag": (put(True, "step"), "step is True"),
    "a step without an end": (put(10**4000, "step"), "step is a int"),
    "a step that is a tensor": (put(torch.tensor(3), "step"), "step is a Tensor"),
    "seconds that are no number": (put(float("nan"), "seconds"), "seconds is nan"),
    "negative seconds": (put(-1.0, "seconds"), "seconds is -1.0"),
    "a factor above one": (put(1e9, "lr_factor"), "lr_factor is 1000000000.0"),
    "a missing key": (drop("ema"), "the state lacks 'ema'"),
    "an unexpected key": (put(1, "more"), "the state has 'more'"),
    "networks that are a list": (
        put([], "networks"),
        "networks is a list instead of keys and values",
    ),
    "a missing player": (drop("networks", "generator"), "networks lacks 'generator'"),
    "another player": (put({}, "networks", "judge"), "networks has 'judge'"),
    "text for a tensor": (put("weights", *WEIGHT), "is 'weights' instead of a tensor"),
    "nothing for a tensor": (put(None, *WEIGHT), "is None instead of a tensor"),
    "another shape": (
        put(torch.zeros(3, 3), *WEIGHT),
        r"a tensor of \(3, 3\), torch.float32, instead of \(8, 2\)",
    ),
    "another type": (put(torch.zeros(8, 2, dtype=torch.int64), *WEIGHT), "torch.int64, instead of"),
    "a missing tensor": (drop(*WEIGHT), "lacks 'layers.1.weight'"),
    "an expanded tensor": (
        put(lambda w: torch.zeros(1).expand(10**6, 10**6), *WEIGHT),
        "more entries than the file holds",
    ),
    "a huge shape elsewhere": (
        put(torch.zeros(1).expand(1 << 40), "metrics", "x"),
        "more entries than the file holds",
    ),
    "a value a thousand times a thousand": (put(ALIASED, "trace"), "the state has too many values"),
    "metrics that are text": (put("good", "metrics"), "metrics is 'good' instead of a dict"),
    "a metric that is text": (
        put("9", "metrics", "ema/modes"),
        "metrics.'ema/modes' is '9' instead of a number",
    ),
    "a best without a step": (put({"score": 1.0}, "best"), "best lacks 'step'"),
    "a trace of text": (put(["abc"], "trace"), r"trace\.0 is 'abc'"),
    "a trace of another player": (put([(1, {"judge": 1.0}, {})], "trace"), "unknown players"),
    "updates of other shapes": (
        put([(1, {"generator": [torch.zeros(1)]})], "updates"),
        "other shapes",
    ),
    "randomness of another length": (
        put(torch.zeros(3, dtype=torch.uint8), "random", "cpu"),
        "random.cpu is a tensor",
    ),
    "randomness that is none": (
        put(lambda t: torch.full_like(t, 255), "random", "cpu"),
        "no state of a random generator",
    ),
    "another rule": (put("Newton", "optimizer", "rule"), "belongs to the rule Newton"),
    "a rule that is a number": (put(7, "optimizer", "rule"), "optimizer.rule is 7"),
    "a cost that is text": (
        put("1", "optimizer", "cost", "gradients"),
        "is '1' instead of a count",
    ),
    "a cost of another kind": (put(1, "optimizer", "cost", "dollars"), "has 'dollars'"),
    "no groups": (put([], *ADAM, "param_groups"), "has 0 groups"),
    "groups that are text": (put(["abc"], *ADAM, "param_groups"), "is 'abc' instead of a dict"),
    "other parameters": (put([5, 6, 7], *ADAM, "param_groups", 0, "params"), "instead of"),
    "betas that are text": (put("ab", *ADAM, "param_groups", 0, "betas"), "betas is 'ab'"),
    "a rate that is text": (
        put("fast", *ADAM, "param_groups", 0, "lr"),
        "lr is 'fast' instead of a number",
    ),
    "a state of no parameter": (put({}, *ADAM, "state", 99), "belongs to no parameter"),
    "a state of a parameter called -1": (put({}, *ADAM, "state", -1), "belongs to no parameter"),
    "a moment of another shape": (
        put(torch.zeros(5), *ADAM, "state", 0, "exp_avg"),
        r"has the shape \(5,\) instead of \(8, 2\)",
    ),
    "a moment that is text": (put("old", *ADAM, "state", 0, "exp_avg"), "using it raised"),
    "a missing moment": (drop(*ADAM, "state", 0, "exp_avg_sq"), "using it raised KeyError"),
    "memory of another shape": (
        remembered("past", torch.zeros(1)),
        r"past is a tensor of shape \(1,\) instead of",
    ),
    "matrices of another number": (
        remembered("bases.joint", [None]),
        "bases.joint has 1 matrices instead of 2",
    ),
    "matrices of another shape": (
        remembered("bases.joint", [None, torch.zeros(1, 1)]),
        "bases.joint lacks a matrix of",
    ),
    "memory that is text": (remembered("past", "abc"), "past is 'abc' instead of a count"),
    "memory of another player": (
        put({"judge": {}}, "optimizer", "rule_state", "parameters"),
        "unknown players",
    ),
    "memory of no parameter": (
        put({"generator": {"x": {}}}, "optimizer", "rule_state", "parameters"),
        "has an unknown parameter",
    ),
    "other options of the rule": (
        put({"k": 3}, "optimizer", "rule_options"),
        "rule_options are those of another run",
    ),
    "optimizers of another class": (
        put({"generator": "torch.SGD"}, "optimizer", "classes"),
        "classes are those of another run",
    ),
    "numbers that are text": (
        put({"count": "3"}, "optimizer", "rule_state", "numbers"),
        "instead of a number",
    ),
    "children that are text": (
        put("abc", "optimizer", "rule_state", "children"),
        "instead of a dict",
    ),
}


@pytest.fixture(scope="module")
def state(made):
    return state_of(made[0])


class TestTheState:
    @pytest.mark.parametrize("what", CHANGES)
    def test_that_does_not_fit(self, made, state, what):
        change, text = CHANGES[what]
        changed = copy.deepcopy(state)
        change(changed)
        training = Trainer(made[1])
        with pytest.raises(sp.UsageError, match=text):
            self.gone_on(training, changed)

    def gone_on(self, training, state):
        training.load_state_dict(state)
        training.train_step()

    def test_that_fits_goes_on(self, made, state):
        training = Trainer(made[1])
        training.load_state_dict(copy.deepcopy(state))
        training.train_step()
        assert training.step == state["step"] + 1

    @pytest.mark.parametrize(
        "what",
        ["a step that is text", "an expanded tensor", "a missing moment", "betas that are text"],
    )
    def test_by_the_command_line(self, run, capsys, what):
        changed = state_of(run)
        CHANGES[what][0](changed)
        checkpoints(run)[-1].write_bytes(with_checksum(saved(changed)))
        code, _, err = command(capsys, *COMMANDS["resume"])
        assert (code, "Traceback" in err) == (2, False)
        assert "Error: The checkpoint's state does not fit this run" in err

    @pytest.mark.parametrize(
        "none", [[], 7, None, {"format": 2}, {"format": "2"}, {}, {"format": 4, "config": [1]}]
    )
    def test_that_is_none(self, made, run, none):
        replace_checkpoints(run, none)
        with pytest.raises(
            sp.UsageError,
            match=r"its format is not|its format is 2|belongs to another configuration",
        ):
            RunDirectory.open(run).load_checkpoint(made[1])

    @pytest.mark.parametrize(
        "rule", ["kronecker-cgd", "lookahead", "averaged", "newton", "per-player"]
    )
    def test_of_every_kind_of_memory_is_read_back(self, tmp_path, rule):
        config = make_run(tmp_path / "run", rule=rule)
        training = Trainer(config)
        training.load_state_dict(RunDirectory.open(tmp_path / "run").load_checkpoint(config))
        assert training.step == 8

    @pytest.mark.parametrize(
        "optimizer", ["soap", "pytorch_optimizer:SOAP", "torch.optim:Adafactor", "signum"]
    )
    def test_of_every_kind_of_optimizer_is_read_back(self, tmp_path, optimizer):
        config = make_run(tmp_path / "run", optimizer=optimizer)
        training = Trainer(config)
        training.load_state_dict(RunDirectory.open(tmp_path / "run").load_checkpoint(config))
        training.train_step()
        assert training.step == 9


def test_a_training_is_untouched_by_a_state_that_it_refuses(made):
    training = Trainer(small(steps=8))
    training.train_step()
    before = copy.deepcopy(training.state_dict())
    with pytest.raises(sp.UsageError):
        training.load_state_dict({**state_of(made[0]), "updates": [1]})
    after = training.state_dict()
    assert after["step"] == before["step"]
    for player, tensors in before["networks"].items():
        assert all(
            torch.equal(after["networks"][player][name], tensor) for name, tensor in tensors.items()
        )
