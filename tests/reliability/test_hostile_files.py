"""Configurations, logs, data and pictures of a stranger's making: read as plain values, in little
memory, or refused in a sentence."""

import ast
import gzip
import json
import re
import shutil
import struct
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import saddlepoint as sp
from saddlepoint import registry
from saddlepoint.compare.preflight import validate_study
from saddlepoint.compare.study import read_study
from saddlepoint.data.idx import read_idx, write_idx
from saddlepoint.io.limits import dump_yaml, parse_json, parse_yaml, read_bytes
from saddlepoint.metrics import MetricResult
from saddlepoint.training import RunDirectory
from saddlepoint.training.config import read_yaml, resolve, with_settings
from saddlepoint.training.evaluator import read_results
from saddlepoint.training.log_line import validate_line
from tests.reliability.strangers import command, make_run

SRC = Path(sp.__file__).parent
LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
MERGES = "m0: &m0 {x: 1, y: 2}\n" + "".join(
    f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 10)}]}}\n" for n in range(1, 12)
)


TREES = {path: ast.parse(path.read_text()) for path in sorted(SRC.rglob("*.py"))}


class TestTheSource:
    """What could execute what it reads stands nowhere."""

    def calls(self, *names):
        for path, tree in TREES.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
                    yield path.relative_to(SRC), node

    def test_no_code_is_made_from_text(self):
        assert not list(
            self.calls("eval", "exec", "compile", "__import__", "os.system", "os.popen")
        )

    def test_no_module_that_unpickles_is_imported(self):
        unsafe = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy", "code"}
        for path, tree in TREES.items():
            for node in ast.walk(tree):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) else []
                assert not {name.partition(".")[0] for name in names} & unsafe, path

    def test_checkpoints_are_loaded_as_weights_only(self):
        found = list(self.calls("torch.load"))
        assert {str(path) for path, _ in found} == {
            "io/checkpoint.py",
            "metrics/fidelity.py",
        }
        for _, call in found:
            assert {k.arg: ast.unparse(k.value) for k in call.keywords}["weights_only"] == "True"
        assert not list(
            self.calls(
                "torch.jit.load",
                "torch.package.PackageImporter",
                "np.load",
                "numpy.load",
                "torch.hub.load",
            )
        )

    def test_yaml_is_loaded_in_one_place(self):
        names = [
            f"yaml.{name}"
            for name in (
                "load",
                "safe_load",
                "load_all",
                "full_load",
                "unsafe_load",
                "safe_load_all",
                "full_load_all",
            )
        ]
        assert not list(self.calls(*names))
        for path, tree in TREES.items():
            loaders = {
                ast.unparse(n)
                for n in ast.walk(tree)
                if isinstance(n, ast.Attribute) and n.attr.endswith("Loader")
            }
            assert not {name for name in loaders if name.startswith("yaml.")} - {
                "yaml.SafeLoader"
            }, path
        assert issubclass(type(parse_yaml.__globals__["_Loader"]("")), yaml.SafeLoader)

    def test_modules_are_imported_by_name_in_two_places(self):
        """Optimizers, whose modules somebody must vouch for, and the doctor's factory, which is
        named on the command line."""
        found = {str(path) for path, _ in self.calls("import_module", "importlib.import_module")}
        assert found == {"__init__.py", "io/imports.py", "doctor/pair.py"}

    def test_no_process_is_started_through_a_shell(self):
        for _, call in self.calls(
            "subprocess.run", "subprocess.Popen", "subprocess.check_output", "subprocess.call"
        ):
            assert isinstance(call.args[0], ast.List)
            assert "shell" not in {keyword.arg for keyword in call.keywords}


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (LAUGHS, "with all aliases expanded"),
            (MERGES, "with all aliases expanded"),
            ("a: &a [*a]", "a value contains itself"),
            ("a: &a {b: *a}", "a value contains itself"),
            ("[" * 60 + "]" * 60, "nested deeper than 40 levels"),
            ("[" * 100_000, "nested too deeply"),
            ("- " * 50_000 + "a", "nested too deeply"),
            ("{a: " * 20_000, "nested too deeply"),
            ("a: " + "9" * 5000, "more than 19 digits"),
            ("a: 0x" + "f" * 5000, "more than 19 digits"),
            ('a: "\\ud800"', "half of a surrogate pair"),
            ("a: !!python/object/apply:os.system [ls]", "python/object/apply:os.system"),
            ("!!python/object:saddlepoint.Game {}", "python/object"),
            ("a: !!binary aGVsbG8=", "is not allowed"),
            ("a: !!set {b}", "is not allowed"),
            ("a: !!timestamp 2001-01-01", "is not allowed"),
            ('a: !!int ""', "does not fit its tag"),
            ("a: !!float abc", "does not fit its tag"),
            ("1: a", "a key is not a string"),
            ("[a, b]: c", "a key is not a string"),
            ("~: c", "a key is not a string"),
            ("a: b: c", "mapping values are not allowed"),
            ("a: \0", "special characters are not allowed"),
            ("--- a\n--- b", "expected a single document"),
            ("a: *nothing", "undefined alias"),
            ("<<: 5", "expected a mapping"),
        ],
    )
    def test_is_refused_in_a_sentence(self, tmp_path, text, said):
        with pytest.raises(yaml.YAMLError, match=re.escape(said)):
            parse_yaml(text)
        file = tmp_path / "a.yaml"
        file.write_bytes(text.encode())
        for read in (read_yaml, read_study):
            with pytest.raises(sp.UsageError, match=r"is not YAML|is larger than 262,144 bytes"):
                read(file)

    def test_plain_values_aliases_and_merges_are_read(self):
        text = "{a: &a {x: 1e-3, y: [1, ~, true, no]}, b: {<<: *a, z: 2001-01-01}, c: *a}"
        assert parse_yaml(text)["b"] == {"x": 0.001, "y": [1, None, True, False], "z": "2001-01-01"}

    @pytest.mark.parametrize(
        "text", ["1e5", "1e-3", "-.5E+7", "2001-01-01", "yes", "~", "12", "<<"]
    )
    def test_text_that_looks_like_something_else_stays_text(self, text):
        assert parse_yaml(dump_yaml({"data_dir": text, text: 1})) == {"data_dir": text, text: 1}

    def test_a_file_without_an_end(self):
        with pytest.raises(sp.UsageError, match="is larger than 262,144 bytes"):
            read_yaml(Path("/dev/zero"))

    def test_a_long_line(self, tmp_path):
        (tmp_path / "a.yaml").write_text("a: " + "x" * 300_000)
        with pytest.raises(sp.UsageError, match="is larger than"):
            read_yaml(tmp_path / "a.yaml")

    def test_not_text(self, tmp_path):
        (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(sp.UsageError, match="is not text"):
            read_yaml(tmp_path / "a.yaml")

    @pytest.mark.parametrize(
        "setting",
        [
            "a" + ".b" * 5000 + "=1",
            "a=" + "[" * 5000,
            "rule=&a [*a]",
            "seed=" + "9" * 400,
            "=1",
            "a..b=2",
        ],
    )
    def test_settings(self, setting):
        with pytest.raises(sp.UsageError):
            with_settings({}, [setting])


class TestConfigurations:
    @pytest.mark.parametrize(
        "tree",
        [
            {"steps": 10**15},
            {"seconds": float("inf")},
            {"seconds": float("nan")},
            {"gradient_equivalents": float("inf")},
            {"batch_size": 10**12},
            {"evaluation_samples": 10**12},
            {"discriminator_steps": 10**12},
            {"seed": 2**63},
            {"optimizer": {"name": "adam", "lr": float("inf")}},
            {"problem": {"name": "mixture8", "hidden": 2**40}},
            {"problem": {"name": "mnist", "data_dir": "a\0b"}, "data_dir": 7},
            {"problem": {"name": ["mixture8"]}},
            {"problem": 7},
            {"rule": {"name": "lookahead", "rule": {"name": "lookahead", "rule": 7}}},
            {"optimizer": {"name": "adam", "betas": [0.9]}},
            {"optimizer": {"name": "adam", "params": []}},
            {"optimizer": {"name": 7}},
            {"optimizer": {"players": {"discriminator": 3}}},
            {"best_by": 3},
            {"device": {"a": 1}},
        ],
    )
    def test_is_refused_in_a_sentence(self, tree):
        with pytest.raises(sp.UsageError):
            self.built(tree)

    def built(self, tree):
        config = resolve(tree)
        registry.build_problem(config.problem.name, config.problem.options).load()
        weight = torch.zeros(2, requires_grad=True)
        registry.build_optimizer(
            config.optimizer.name,
            [("weight", weight)],
            config.optimizer.options_for("discriminator"),
        )

    def test_a_study_that_asks_for_a_thousand_years(self, tmp_path):
        plan = {"problem": "mixture8", "budget": {"steps": 5}}
        base = {"seeds": 2, "methods": ["adam"], "problems": [plan]}
        for change in (
            {"seeds": 10**12},
            {"methods": [{"adam": {}}]},
            {"tuning": {"trials": 10**12}},
            {"name": "../out"},
            {"name": ".."},
            {"name": "a/b"},
            {"name": "a" * 500},
            {"problems": [{**plan, "points": 10**12}]},
            {"problems": [{**plan, "budget": {"steps": float("inf")}}]},
            {"problems": [{**plan, "robustness": {"factors": [float("nan")]}}]},
            {"problems": [{**plan, "space": {"optimizer.lr": {"log": [1e-3, float("inf")]}}}]},
            {
                "methods": {
                    "adam": {
                        "space": {
                            "optimizer.lr": {"log": [0.1, 0.2]},
                            "ratio": {"choices": [{"a": 1}]},
                        }
                    }
                }
            },
            {
                "methods": {"adam": {"space": {}}},
                "problems": [{**plan, "space": {"ratio": {"choices": [0.5]}}}],
            },
        ):
            (tmp_path / "study.yaml").write_text(yaml.safe_dump(base | change))
            with pytest.raises(sp.UsageError):
                validate_study(read_study(tmp_path / "study.yaml"))


class TestImports:
    """A file may name a class; whose module is imported for it is not the file's to decide."""

    @pytest.fixture
    def lying_about(self, tmp_path, monkeypatch):
        """A module in the current directory that says when it is imported."""
        (tmp_path / "stranger.py").write_text(
            "open('witness', 'w').close()\nfrom torch.optim import SGD as Mine\ndef system(*_,"
            " **__): 0\n"
        )
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delenv("SADDLEPOINT_TRUST", raising=False)
        yield tmp_path / "witness"
        sys.modules.pop("stranger", None)

    def test_a_configuration(self, lying_about, capsys):
        Path("config.yaml").write_text(
            "problem: mixture8\noptimizer: {name: 'stranger:Mine', lr: 0.1}\n"
        )
        code, _, err = command(capsys, "train", "--config", "config.yaml", "--steps", 1)
        assert code == 2
        assert "belongs to no installed package" in err
        assert "SADDLEPOINT_TRUST=stranger" in err
        assert not lying_about.exists()

    def test_a_run(self, lying_about, capsys):
        make_run(Path("run"))
        config = Path("run/config.yaml")
        config.write_text(config.read_text().replace("name: adam", "name: stranger:Mine"))
        for words in (
            ["resume", "run"],
            ["sample", "run"],
            ["evaluate", "run"],
            ["diagnose", "run"],
            ["best", "run"],
        ):
            code, _, err = command(capsys, *words)
            assert (code, "belongs to no installed package" in err) == (2, True)
        assert command(capsys, "report", "run")[0] == 0  # a report imports nothing
        assert not lying_about.exists()

    @pytest.mark.parametrize(
        "methods",
        [
            "['stranger:Mine']",
            "{a: {optimizer: 'stranger:Mine'}}",
            "{adam: {settings: {optimizer.name: 'stranger:Mine'}}}",
        ],
    )
    def test_a_study(self, lying_about, capsys, methods):
        Path("study.yaml").write_text(
            f"methods: {methods}\nproblems: [{{problem: mixture8, budget: {{steps: 1}}}}]\n"
        )
        code, _, err = command(capsys, "compare", "study.yaml")
        assert (code, "belongs to no installed package" in err) == (2, True)
        assert not lying_about.exists()

    def test_the_user_may(self, lying_about, capsys, monkeypatch):
        monkeypatch.setenv("SADDLEPOINT_TRUST", "")
        words = [
            "--steps",
            1,
            "--lr",
            0.1,
            "--set",
            "problem.hidden=4",
            "--set",
            "evaluation_samples=160",
            "--out",
            "run",
        ]
        code, _, err = command(capsys, "train", "mixture8", "--optimizer", "stranger:Mine", *words)
        assert (code, err) == (0, "")
        assert lying_about.exists()

    @pytest.mark.parametrize(
        "name",
        [
            "os:system",
            "builtins:eval",
            "subprocess:Popen",
            "torch:load",
            "torch.optim:Optimizer.step",
            "sys:exit",
        ],
    )
    def test_what_is_no_optimizer_is_not_called(self, name):
        with pytest.raises(
            sp.UsageError, match=r"is not a subclass of torch.optim.Optimizer|Cannot load"
        ):
            registry.build_optimizer(name, [], {"command": "touch witness"})

    @pytest.mark.parametrize(
        "name",
        [
            "antigravity:fly",
            "this:s",
            "idlelib.idle:x",
            "pytest.__main__:x",
            "unittest.__main__:x",
            "turtledemo:x",
        ],
    )
    def test_modules_that_do_something_are_not_imported(self, name):
        with pytest.raises(sp.UsageError, match=r"belongs to no installed package|names a program"):
            registry.optimizer_class(name)
        assert name.partition(":")[0] not in sys.modules

    @pytest.mark.parametrize(
        "name",
        [":", "a:", ":a", "..:a", ".a:b", "a b:c", "a\0b:c", "a/b:c", "a" * 5000 + ":b", "é:b"],
    )
    def test_names_that_are_none(self, name):
        with pytest.raises(sp.UsageError, match="Cannot load"):
            registry.optimizer_class(name)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "run"
    make_run(path)
    return path


@pytest.fixture
def run(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, "run")
    return Path("run")


class TestLogs:
    @pytest.mark.parametrize(
        "line",
        [
            {"step": -1},
            {"step": True},
            {"step": 3, "losses": []},
            {"step": 3, "losses": {"generator": "x"}},
            {"step": 3, "losses": {"generator": 10**400}},
            {"step": 3, "metrics": {"ema/modes": [1]}},
            {"step": 3, "trace": {"steps": [1]}},
            {
                "step": 3,
                "trace": {"steps": [0.0], "losses": {"generator": [1.0]}, "projections": {}},
            },
            {
                "step": 3,
                "trace": {"steps": [1, 2], "losses": {"generator": [1.0]}, "projections": {}},
            },
            {"step": 3, "probe": {"gradients": {"norms": {}}, "saturated": {}}},
            {"step": 3, "divergence": {"step": 4}},
            {"step": 3, "rollback": {"number": 1}},
            {"step": 3, "rollback": 1},
        ],
    )
    def test_a_line_that_is_none(self, run, capsys, line):
        with pytest.raises(sp.UsageError, match="is no line of a run's log"):
            validate_line(line, "here")
        with (run / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        for words in (["resume", "run", "--steps", "+1"], ["diagnose", "run"], ["best", "run"]):
            code, _, err = command(capsys, *words)
            assert (code, "Traceback" in err) == (2, False)
            assert "is no line of a run's log" in err

    def test_a_probe_of_another_player(self):
        both = {"discriminator": 1.0, "generator": 1.0}
        gradients = {"norms": both, "layers": {}, "zeros": both, "signal_to_noise": {}}
        validate_line({"step": 3, "probe": {"gradients": gradients, "saturated": {}}}, "here")
        for part in ("norms", "zeros"):
            with pytest.raises(sp.UsageError, match="not a number of each player"):
                validate_line(
                    {
                        "step": 3,
                        "probe": {
                            "gradients": {**gradients, part: {"judge": 1.0}},
                            "saturated": {},
                        },
                    },
                    "here",
                )

    def test_a_summary_that_is_nested_deeply(self, run, capsys):
        """Whether a run has ended is looked up there; what cannot be read says no, and is written
        anew."""
        (run / "summary.json").write_text("[" * 100_000)
        code, _, err = command(capsys, "resume", "run")
        assert (code, "Traceback" in err) == (0, False)
        assert RunDirectory.open(run).read_summary()["status"] == "finished"

    def test_own_lines_are_lines(self, run):
        assert len(RunDirectory.open(run).read_log()) == 3

    @pytest.mark.parametrize("tail", ["[" * 200_000, "9" * 5000, '"\\ud800"', "\xff" * 10, "{" * 5])
    def test_a_tail_that_is_not_json(self, run, capsys, tail):
        with (run / "metrics.jsonl").open("a") as file:
            file.write(tail)
        assert command(capsys, "best", "run")[0] in (0, 2)
        assert command(capsys, "report", "run", "-o", "page.html")[0] in (0, 2)


class TestJson:
    def test_deep_large_and_broken(self, tmp_path):
        for text in ("[" * 200_000, "[1, 2", '"\\ud800"', "", "nul"):
            with pytest.raises(ValueError, match=r"."):
                parse_json(text)
        assert parse_json("[" + "9" * 400 + ", NaN, 12]") == [float("inf"), None, 12]
        assert parse_json('"\\ud83d\\ude00"') == "\N{GRINNING FACE}"

    def test_limits(self, tmp_path):
        (tmp_path / "a").write_bytes(b"x" * 11)
        assert len(read_bytes(tmp_path / "a", 11)) == 11
        with pytest.raises(sp.UsageError, match="is larger than 10 bytes"):
            read_bytes(tmp_path / "a", 10)
        with pytest.raises(sp.UsageError, match="is not a regular file"):
            read_bytes(tmp_path, 10)
        with pytest.raises(sp.UsageError, match="zero byte"):
            read_bytes(Path("a\0b"), 10)

    @pytest.mark.parametrize(
        "name",
        [
            "summary.json",
            "evaluation.json",
            "diagnosis.json",
            "environment.json",
            "config.yaml",
            "metrics.jsonl",
        ],
    )
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"[]",
            b"7",
            b'"x"',
            b"{",
            b"\xff\xfe",
            b"[" * 100_000,
            b'{"steps": "x"}',
            b"null",
            b'{"step": []}',
        ],
    )
    def test_files_of_a_run_in_a_report(self, run, capsys, name, content):
        (run / name).write_bytes(content)
        code, _, err = command(capsys, "report", "run")
        assert (code in (0, 2), "Traceback" in err) == (True, False)

    def test_results_of_metrics(self, run, tmp_path):
        result = MetricResult(
            metric="quality", value=0.9, interval=(0.8, 0.95), level=0.95, replicates=200, generated=25, real=0, split="known density",
            extractor="none", extractor_hash="", resize="none", weights="ema", seed=0,
        ).to_dict()  # fmt: skip
        assert MetricResult.from_dict(result).value == 0.9
        file = tmp_path / "evaluation.json"
        changes = [
            {"value": "x"},
            {"value": None},
            {"metric": []},
            {"generated": 2.5},
            {"interval": ["a", 1]},
            {"interval": 3},
            {"seed": True},
        ]
        changes += [{"weights": "other"}, {"more": 1}, {"level": {}}]
        for change in changes:
            file.write_text(json.dumps({"results": [{**result, **change}]}))
            with pytest.raises(sp.UsageError):
                read_results(file)
        for content in (
            "[]",
            "{}",
            '{"results": 3}',
            '{"results": [3]}',
            "[" * 100_000,
            '{"results": {"a": 1}}',
            "",
        ):
            file.write_text(content)
            with pytest.raises(sp.UsageError, match=r"holds no results|not the result"):
                read_results(file)


def endless_gzip(start, blocks=4096):
    """A gzip file of ``start`` followed by blocks of 16 MiB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + first + block * blocks


def png_header(width, height):
    """The beginning of a PNG file that says it is so large."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )


class TestIdx:
    @pytest.mark.parametrize(
        ("start", "said"),
        [
            (
                b"\0\0\x08\x03" + b"\xff" * 12,
                "announces 79,228,162,458,924,105,385,300,197,375 bytes in 3 dimensions",
            ),
            (b"\0\0\x08\x01" + struct.pack(">I", (1 << 28) + 1), "announces 268,435,457 bytes"),
            (b"\0\0\x08\xff" + b"\0\0\0\1" * 255, "in 255 dimensions"),
            (
                b"\0\0\x08\x01" + struct.pack(">I", 100),
                "holds more bytes of data where its header announces 100",
            ),
        ],
    )
    def test_a_bomb(self, tmp_path, start, said):
        file = tmp_path / "a.gz"
        file.write_bytes(endless_gzip(start))  # 64 GiB unpacked
        assert file.stat().st_size < 100 << 20
        with pytest.raises(sp.UsageError, match=said):
            read_idx(file)

    def test_nothing_times_a_great_deal(self, tmp_path):
        (tmp_path / "a").write_bytes(b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 0, 2**32 - 1))
        with pytest.raises(sp.UsageError, match="announces 0 bytes in 3 dimensions"):
            read_idx(tmp_path / "a")

    def test_zero_images(self, tmp_path):
        write_idx(tmp_path / "a.gz", np.zeros((0, 28, 28), np.uint8))
        assert read_idx(tmp_path / "a.gz").shape == (0, 28, 28)

    def test_two_members(self, tmp_path):
        (tmp_path / "a.gz").write_bytes(
            gzip.compress(b"\0\0\x08\x01\0\0\0\2a") + gzip.compress(b"b")
        )
        assert read_idx(tmp_path / "a.gz").tolist() == [97, 98]


class TestPictures:
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (png_header(65_535, 65_535), "pixels; the limit is"),
            (b"\x89PNG", "not a PNG"),
            (b"<svg onload=alert(1)>", "not a PNG"),
            (png_header(8, 8) + bytes(1 << 25), "is larger than"),
        ],
    )
    def test_in_a_report(self, run, capsys, content, said):
        (run / "samples" / "step-00000004.png").write_bytes(content)
        code, _, err = command(capsys, "report", "run")
        assert (code, said in err) == (2, True)


@pytest.mark.slow
def test_memory_stays_bounded(tmp_path, made):
    """Every bomb in one process that may take 1.5 GiB of addresses above what its imports take, and
    a third of that of memory."""
    (tmp_path / "a.gz").write_bytes(
        endless_gzip(b"\0\0\x08\x03" + struct.pack(">3I", 300_000, 28, 28), blocks=512)
    )
    (tmp_path / "laughs.yaml").write_text(LAUGHS)
    (tmp_path / "merges.yaml").write_text(MERGES)
    (tmp_path / "deep.json").write_text('{"results": ' + "[" * 5_000_000)
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file
    shutil.copytree(made, tmp_path / "run")
    with (tmp_path / "run/metrics.jsonl").open("r+b") as file:
        file.truncate(1 << 40)
    program = f"""
        import io, resource, sys, zipfile
        from pathlib import Path
        import torch
        import saddlepoint as sp
        from saddlepoint.compare.study import read_study
        from saddlepoint.data.idx import read_idx
        from saddlepoint.report import make_report
        from saddlepoint.training import RunDirectory, Trainer, resolve
        from saddlepoint.io.checkpoint import load_payload
        from saddlepoint.training.config import read_yaml
        from saddlepoint.training.evaluator import read_results

        root = Path({str(tmp_path)!r})
        bombs = []
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target, target.open("archive/data.pkl", "w") as record:
            for _ in range(200):
                record.write(bytes(1 << 20))
        bombs.append(lambda: load_payload(packed))
        for header in (b"cbuiltins\\nbytearray\\nJ\\xff\\xff\\xff\\x7f\\x85R.", b"]" + b"(" * 100000 + b".", b"r\\xff\\xff\\xff\\xff."):
            stored = io.BytesIO()
            with zipfile.ZipFile(stored, "w") as target:
                target.writestr("archive/data.pkl", b"\\x80\\x02" + header)
                target.writestr("archive/version", "3")
            bombs.append(lambda stored=stored: load_payload(stored))
        bombs += [lambda name=name: read_yaml(root / name) for name in ("laughs.yaml", "merges.yaml", "large.json")]
        bombs += [lambda: read_study(root / "laughs.yaml"), lambda: read_results(root / "deep.json"), lambda: read_results(root / "large.json")]
        bombs += [lambda: read_idx(root / "a.gz"), lambda: RunDirectory.open(root / "run").read_log(), lambda: make_report(root / "run")]
        resolve({{"problem": "mixture8"}})
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (3 << 29), size + (3 << 29)))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number, bomb in enumerate(bombs):
            try:
                bomb()
            except MemoryError:
                sys.exit(f"bomb {{number}} filled the memory")
            except Exception as error:
                print(number, type(error).__name__, str(error)[:60])
            else:
                sys.exit(f"bomb {{number}} went off")
        print("grown", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # MiB; 256 of them are what an IDX file may hold
    assert int(re.search(r"grown (\d+)", done.stdout).group(1)) < 512, done.stdout


def test_a_message_is_a_sentence(capsys, tmp_path, monkeypatch):
    """A message is short however long what it speaks of, and steers no terminal."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text('problem: "' + "\\x1b[2J" * 30_000 + '"\n')
    code, _, err = command(capsys, "train", "--config", "config.yaml")
    assert (code, len(err) < 12_000, "\x1b" in err) == (2, True, False)
