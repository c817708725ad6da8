"""A disk that is full, read-only or broken: a sentence, exit code 2, nothing half written, and the
run goes on when it is whole again."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import saddlepoint as sp
from saddlepoint.cli import main
from saddlepoint.io.atomic import append_atomic
from saddlepoint.training import RunDirectory
from tests.training.conftest import resume, run_to_the_end, small

SENTENCE = (
    r"Cannot write \S+: {}\. (The checkpoint of step \d+ is complete|Nothing is trained yet); when"
    r" the cause is removed, resume with: saddle"
)


def broken(monkeypatch, at, number):
    """Make the disk fail from the ``at``-th flush on; return what counts them and what mends it."""
    real, counted = os.fsync, [0]

    def fsync(descriptor):
        counted[0] += 1
        if counted[0] >= at:
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return counted, lambda: monkeypatch.setattr(os, "fsync", real)


class TestWhereverItFails:
    FLUSHES = 36

    def test_there_are_so_many_flushes(self, monkeypatch, tmp_path):
        counted, mend = broken(monkeypatch, 1000, errno.EIO)
        run_to_the_end(small(), tmp_path / "run")
        mend()
        # the best evaluation is written where it is
        assert self.FLUSHES - 2 <= counted[0] <= self.FLUSHES + 2

    @pytest.mark.parametrize(
        "number", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=errno.errorcode.get
    )
    @pytest.mark.parametrize("at", range(5, FLUSHES - 2, 4))
    def test_it_is_said_and_nothing_is_lost(self, monkeypatch, tmp_path, same_run, number, at):
        _, mend = broken(monkeypatch, at + number % 4, number)
        with pytest.raises(sp.UsageError, match=SENTENCE.format(os.strerror(number))):
            run_to_the_end(small(), tmp_path / "run")
        mend()
        assert not list((tmp_path / "run").rglob(".*.tmp"))
        for path in (tmp_path / "run/checkpoints").iterdir():
            RunDirectory.open(tmp_path / "run").load_checkpoint(
                small(), "best" if path.stem == "best" else int(path.stem[5:])
            )
        resume(tmp_path / "run")
        same_run(tmp_path / "run")

    @pytest.mark.parametrize("at", range(1, 5))
    def test_before_there_is_a_run_another_directory_is_asked_for(
        self, monkeypatch, tmp_path, at, same_run
    ):
        _, mend = broken(monkeypatch, at, errno.ENOSPC)
        with pytest.raises(
            sp.UsageError,
            match=(
                r"Cannot create the run directory .*run: No space left on device\. Choose another"
                r" --out"
            ),
        ):
            run_to_the_end(small(), tmp_path / "run")
        mend()
        # there where only its flush had failed
        (tmp_path / "run/config.yaml").unlink(missing_ok=True)
        run_to_the_end(small(), tmp_path / "run")
        same_run(tmp_path / "run")


LIMITED = """
import resource, sys
from pathlib import Path
from saddlepoint.io.atomic import append_atomic
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
for number in range(8):
    try:
        append_atomic(path, b"%029d\\n" % number)
    except OSError as error:
        print(number, error.errno, path.stat().st_size)
"""


def test_a_line_is_appended_whole_or_not_at_all(tmp_path):
    """The kernel itself takes ten bytes of the fourth line and refuses the rest."""
    child = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "log"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.splitlines() == [f"{number} {errno.EFBIG} 90" for number in range(3, 8)]
    append_atomic(tmp_path / "log", b"more\n")
    assert (tmp_path / "log").read_bytes() == b"".join(
        b"%029d\n" % number for number in range(3)
    ) + b"more\n"


def command(*arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code or 0


class TestASmallDisk:
    @pytest.mark.parametrize("size", [40, 80, 120, 160])
    def test_full(self, disk, tmp_path, capsys, same_run, size):
        place, remount = disk
        remount(f"size={size}k")
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(small().model_dump(mode="json")))
        arguments = ("train", "--config", tmp_path / "config.yaml", "--out", place / "run")
        assert command(*arguments) == 2
        said = capsys.readouterr().err
        assert (
            re.match(f"Error: {SENTENCE.format('No space left on device')}", said)
            or "Cannot create the run directory" in said
        )
        assert said.count("\n") == 1, "one sentence, no traceback"
        assert not list(place.rglob(".*.tmp"))
        begun = (place / "run/config.yaml").exists()
        assert command("resume", place / "run") == 2, "still full: said again"
        remount("size=1m")
        assert command(*(("resume", place / "run") if begun else arguments)) == 0
        same_run(place / "run")

    def test_read_only(self, disk, copy, capsys):
        place, remount = disk
        remount("size=1m")
        copy = Path(subprocess.run(["cp", "-r", copy, place / "run"], check=True).args[-1])
        before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        remount("ro")
        assert command("resume", copy, "--steps", "+4") == 2
        assert re.match(
            f"Error: {SENTENCE.format('Read-only file system')}", capsys.readouterr().err
        )
        for name in ("evaluate", "diagnose", "sample", "report"):
            assert command(name, copy) == 2
            said = capsys.readouterr().err
            assert re.fullmatch(
                r"Error: Cannot write \S+: Read-only file system\.( Choose another file with"
                r" -o\.)?\n",
                said,
            ), said
        assert command("sample", copy, "-o", place.parent / "picture.png") == 0
        assert command("train", "mixture8", "--out", place / "new") == 2
        assert "Read-only file system. Choose another --out." in capsys.readouterr().err
        remount("rw")
        assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
        assert command("resume", copy, "--steps", "+4") == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_wherever_else_a_disk_fails_it_is_a_sentence(copy, capsys, monkeypatch, number):
    def fail(path):
        raise OSError(number, os.strerror(number), str(path / "somewhere"))

    monkeypatch.setattr("saddlepoint.report.make_report", fail)
    assert command("report", copy) == 2
    remedy = "Finished results are kept; repeat the command when the cause is removed."
    assert capsys.readouterr().err == f"Error: {copy}/somewhere: {os.strerror(number)}. {remedy}\n"


def test_other_errors_of_the_system_are_not_hidden(copy, monkeypatch):
    def fail(path):
        raise FileNotFoundError(errno.ENOENT, "a mistake of the program")

    monkeypatch.setattr("saddlepoint.report.make_report", fail)
    with pytest.raises(FileNotFoundError):
        main(["report", str(copy)])
