"""A finished run, copies of it to damage, and what must be the same afterwards."""

import shutil
import subprocess

import pytest
from scripts.kill_runs import differences

from tests.cli.conftest import cli  # noqa: F401 -- a fixture of these tests too
from tests.compare.conftest import small_study  # noqa: F401 -- likewise
from tests.training.conftest import run_to_the_end, small


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The directory of a finished run: checkpoints of steps 4, 8, 12 and the best."""
    path = tmp_path_factory.mktemp("finished") / "run"
    run_to_the_end(small(), path)
    return path


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of it, of which a test may break what it likes."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def same_run(finished):
    """Asserts that a directory holds the run as it was trained without any fault, all but times."""

    def check(path):
        assert differences(finished, path) == []
        assert not list(path.rglob(".*.tmp"))

    return check


@pytest.fixture
def disk(tmp_path):
    """Mounts a small disk of its own; returns what sets its options. Skipped where one may not
    mount."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")

    def remount(options):
        subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)

    if shutil.which("mount") is None:
        pytest.skip("there is no mount command here")
    mount("size=64k")
    yield place, remount
    subprocess.run(["umount", place], check=True)
