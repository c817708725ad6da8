"""Run directories of other formats are refused with a message that says which version made them."""

import json

import pytest
import yaml

import saddlepoint as sp
from saddlepoint.training import RunDirectory, resolve
from saddlepoint.training.config import FORMAT, read_yaml, validate


@pytest.fixture
def run(harness, tmp_path):
    return RunDirectory.create(harness.small(), tmp_path / "run")


def rewrite(run, change):
    path = run.path / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    change(tree)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def older(tree):
    """What format 4 had: no key format, and other names of keys."""
    del tree["format"]
    tree["scheme"], tree["schedule"] = tree.pop("update_scheme"), tree.pop("lr_schedule")


def test_this_format_is_read(run, harness):
    assert read_yaml(run.path / "config.yaml")["format"] == FORMAT
    assert run.read_config() == harness.small()


def test_the_configuration_of_a_run_trains_another_one(run):
    assert resolve(read_yaml(run.path / "config.yaml")) == run.read_config()


def test_an_older_format_is_refused(run):
    path = run.path / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "saddlepoint": "0.0.3"}))
    rewrite(run, older)
    with pytest.raises(
        sp.UsageError,
        match=rf"was made by saddlepoint 0\.0\.3 \(format {FORMAT - 1} or older\); this version"
        rf" reads format {FORMAT}\. Train it again or use that version\.",
    ):
        RunDirectory.open(run.path).read_config()


@pytest.mark.parametrize("record", [None, "not JSON", "[1]", "{}"])
def test_without_a_readable_record_the_version_is_unknown(run, record):
    path = run.path / "environment.json"
    if record is None:
        path.unlink()
    else:
        path.write_text(record)
    rewrite(run, older)
    with pytest.raises(sp.UsageError, match="was made by an unknown version of saddlepoint"):
        run.read_config()


@pytest.mark.parametrize("found", [FORMAT + 1, "new", True])
def test_a_newer_or_wrong_format_is_refused(run, found):
    rewrite(run, lambda tree: tree.update(format=found))
    with pytest.raises(sp.UsageError, match=rf"\(format {found!r}\); this version reads"):
        run.read_config()
    with pytest.raises(sp.UsageError, match=f"it has format {found!r}; this version reads format"):
        resolve(read_yaml(run.path / "config.yaml"))


def test_a_rule_is_built_once(harness, monkeypatch):
    from saddlepoint import registry
    from saddlepoint.training import Trainer

    built, build = [], registry.build_rule

    def counted(name, options):
        built.append(name)
        return build(name, options)

    monkeypatch.setattr(registry, "build_rule", counted)
    config = harness.small(rule="acgd")
    assert Trainer(config).optimizer.rule is config.built_rule
    assert built == ["acgd"]
    again = validate(config.model_dump(mode="json"))
    assert again == config
    assert again.built_rule == config.built_rule
