"""Checkpoints and logs that the disk has damaged: it is noticed, named, and the run goes on from
what is whole, to the same end."""

import errno
import os
import shutil
import time
from pathlib import Path

import pytest

import saddlepoint as sp
from saddlepoint.errors import CorruptFileWarning
from saddlepoint.io.checkpoint import FORMAT, CorruptCheckpointError, decode, encode
from saddlepoint.training import RunDirectory
from tests.training.conftest import resume, run_to_the_end, small

FILES = ("step-00000004.pt", "step-00000008.pt", "step-00000012.pt", "best.pt")


def spoil(path, at=5000):
    """Flip a bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def loaded(path, at="last"):
    run = RunDirectory.open(path)
    return run.load_checkpoint(run.read_config(), at)


class TestEveryBit:
    def test_truncated_at_every_kibibyte(self, copy):
        """And by a byte, to nothing, and by as much as the checksum is long: each is noticed, and
        the one before is used."""
        last = copy / "checkpoints" / FILES[2]
        whole = last.read_bytes()
        sizes = [
            *range(0, len(whole), 1024),
            len(whole) - 1,
            len(whole) - 96,
            len(whole) - 97,
            len(whole) - 98,
        ]
        assert len(sizes) > 20
        for size in sizes:
            last.write_bytes(whole[:size])
            with pytest.warns(
                CorruptFileWarning,
                match=(
                    r"step-00000012\.pt is truncated or damaged: .*checkpoint, step-00000008\.pt,"
                    r" is used"
                ),
            ):
                assert loaded(copy)["step"] == 8
        last.write_bytes(whole + b"\0")
        with pytest.warns(CorruptFileWarning, match="it does not end with a checksum"):
            assert loaded(copy)["step"] == 8
        last.write_bytes(whole)
        assert loaded(copy)["step"] == 12

    @pytest.mark.parametrize("name", FILES)
    def test_a_bit_flipped_anywhere(self, finished, name):
        """In places spread over the file, and in every bit of the checksum itself."""
        content = (finished / "checkpoints" / name).read_bytes()
        places = [8 * at + at % 8 for at in range(0, len(content), 211)] + list(
            range(8 * (len(content) - 98), 8 * len(content))
        )
        assert decode(content)["format"] == FORMAT
        for place in places:
            flipped = bytearray(content)
            flipped[place // 8] ^= 1 << place % 8
            with pytest.raises(CorruptCheckpointError):
                decode(bytes(flipped))

    def test_torch_reads_it_as_any_other_file(self, finished):
        import torch

        path = finished / "checkpoints/best.pt"
        assert torch.load(path, weights_only=True)["step"] == decode(path.read_bytes())["step"]


class TestThePreviousOneIsUsed:
    def test_and_the_run_ends_as_if_nothing_had_been(self, copy, same_run):
        spoil(copy / "checkpoints" / FILES[2])
        with pytest.warns(
            CorruptFileWarning,
            match=(
                r"step-00000012\.pt is truncated or damaged: its checksum does not match its"
                r" content"
            ),
        ):
            training, _, status = resume(copy)
        assert (status, training.step) == ("finished", 12)
        same_run(copy)

    def test_two_are_damaged(self, copy, same_run):
        spoil(copy / "checkpoints" / FILES[2])
        (copy / "checkpoints" / FILES[1]).write_bytes(b"")
        with pytest.warns(CorruptFileWarning) as warned:
            resume(copy)
        (text,) = {str(warning.message) for warning in warned}
        assert "step-00000012.pt is truncated or damaged" in text
        assert "step-00000008.pt is truncated or damaged" in text
        assert text.endswith("The previous checkpoint, step-00000004.pt, is used.")
        same_run(copy)

    def test_while_one_only_looks_nothing_is_removed(self, copy):
        spoil(copy / "checkpoints" / FILES[2])
        before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        with pytest.warns(CorruptFileWarning):
            loaded(copy)
        assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before

    def test_none_is_whole(self, copy):
        for name in FILES[:3]:
            spoil(copy / "checkpoints" / name)
        with pytest.raises(sp.UsageError) as error:
            resume(copy)
        assert (
            str(error.value)
            == f"Checkpoint {copy}/checkpoints/step-00000012.pt is truncated or damaged: its"
            " checksum does not match its content. All earlier ones are damaged too. Restore one"
            " from a"
            f" copy, or start again with `saddlepoint train --config {copy}/config.yaml`."
        )
        assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == sorted(FILES), (
            "nothing is removed"
        )

    def test_a_sector_that_cannot_be_read(self, copy, monkeypatch):
        failing(monkeypatch, errno.EIO)
        with pytest.warns(
            CorruptFileWarning,
            match=r"step-00000012\.pt is truncated or damaged: the disk cannot read it",
        ):
            assert loaded(copy)["step"] == 8

    def test_one_that_may_not_be_read_is_no_damage(self, copy, monkeypatch):
        failing(monkeypatch, errno.EACCES)
        with pytest.raises(
            sp.UsageError, match=r"Cannot read .*step-00000012\.pt: Permission denied"
        ):
            loaded(copy)

    def test_one_of_a_later_version_is_no_damage(self, copy):
        """Falling back would delete the work of the other version."""
        last = copy / "checkpoints" / FILES[2]
        last.write_bytes(encode({**decode(last.read_bytes()), "format": FORMAT + 1}))
        with pytest.raises(
            sp.UsageError,
            match=(
                rf"its format is {FORMAT + 1}, written by saddlepoint .*; this version reads"
                rf" format {FORMAT}"
            ),
        ):
            resume(copy)
        assert last.exists()

    @pytest.mark.parametrize("step", [4, 12])
    def test_one_that_was_asked_for_by_its_step(self, copy, step):
        spoil(copy / f"checkpoints/step-{step:08d}.pt")
        others = ", ".join(str(other) for other in (4, 8, 12) if other != step)
        with pytest.raises(
            sp.UsageError,
            match=(
                rf"step-{step:08d}\.pt is truncated or damaged: .* Use another one: {others},"
                r" best\."
            ),
        ):
            loaded(copy, step)


def failing(monkeypatch, number):
    read = Path.read_bytes

    def read_bytes(self):
        if self.name == FILES[2]:
            raise OSError(number, os.strerror(number))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)


class TestTheBestOne:
    def test_is_named_and_the_last_one_offered(self, copy):
        spoil(copy / "checkpoints/best.pt")
        with pytest.raises(
            sp.UsageError,
            match=(
                r"best\.pt is truncated or damaged: .* Use the last one instead; training"
                r" can be resumed"
            ),
        ):
            loaded(copy, "best")
        assert loaded(copy)["step"] == 12

    @pytest.mark.parametrize("fault", ["damaged", "missing", "of an earlier evaluation"])
    def test_is_written_again_from_its_own_step_when_the_run_goes_on(self, copy, fault):
        """The last is what a process leaves that was killed between the two files."""
        best, before = copy / "checkpoints/best.pt", (copy / "checkpoints/best.pt").read_bytes()
        step = loaded(copy)["best"]["step"]
        assert decode(before)["step"] == step in (4, 8, 12)
        if fault == "damaged":
            spoil(best)
        elif fault == "missing":
            best.unlink()
        else:
            other_step = next(other for other in (4, 8, 12) if other != step)
            best.write_bytes((copy / f"checkpoints/step-{other_step:08d}.pt").read_bytes())
        run = RunDirectory.open(copy)
        run.truncate_after(loaded(copy))
        assert best.read_bytes() == before

    def test_is_said_to_be_lost_where_no_copy_is_kept(self, copy):
        step = loaded(copy)["best"]["step"]
        spoil(copy / "checkpoints/best.pt")
        state = loaded(copy, 12 if step != 12 else 8)
        (copy / f"checkpoints/step-{step:08d}.pt").unlink()
        state["best"] = {"score": 0.0, "step": step}
        with pytest.warns(
            CorruptFileWarning,
            match=(
                r"best\.pt is damaged: .* there is no undamaged copy\. The next better evaluation"
                r" writes it"
            ),
        ):
            RunDirectory.open(copy).truncate_after(state)

    def test_is_not_replaced_by_a_copy_that_is_damaged_itself(self, copy):
        step = loaded(copy)["best"]["step"]
        state = loaded(copy)
        for name in ("best", f"step-{step:08d}"):
            spoil(copy / f"checkpoints/{name}.pt")
        before = (copy / "checkpoints/best.pt").read_bytes()
        with pytest.warns(CorruptFileWarning, match="there is no undamaged copy"):
            RunDirectory.open(copy).truncate_after(state)
        assert (copy / "checkpoints/best.pt").read_bytes() == before

    def test_alone_is_not_taken_for_a_run_that_never_began(self, cli, copy):
        for name in FILES[:3]:
            (copy / "checkpoints" / name).unlink()
        code, _, err = cli("resume", copy)
        assert (code, err) == (
            2,
            (
                f"Error: {copy}/checkpoints holds only best.pt. Restore the other"
                " checkpoints from a copy.\n"
            ),
        )
        assert len((copy / "metrics.jsonl").read_text().splitlines()) == 4


def test_files_of_other_names_are_left_alone(copy, same_run):
    strangers = [copy / "samples/step-best.png", copy / "checkpoints/step-00000012 (copy).pt"]
    for path in strangers:
        path.write_bytes(b"mine")
    assert RunDirectory.open(copy).checkpoint_steps() == [4, 8, 12]
    (copy / "summary.json").unlink()
    resume(copy)
    for path in strangers:
        assert path.read_bytes() == b"mine"
        path.unlink()
    same_run(copy)


class TestTheLog:
    def test_half_a_last_line(self, copy, same_run):
        """Of the step that comes after the last checkpoint: it is made again."""
        (copy / "checkpoints" / FILES[2]).unlink()
        log = copy / "metrics.jsonl"
        log.write_bytes(log.read_bytes()[:-40])
        assert [line["step"] for line in RunDirectory.open(copy).read_log()] == [0, 4, 8]
        with pytest.warns(
            CorruptFileWarning,
            match=r"metrics\.jsonl ends in an incomplete line, which is left out",
        ):
            resume(copy)
        same_run(copy)

    @pytest.mark.parametrize(
        "tail", [b'{"step": 14, "lo', b"\0" * 4096, b'{"step": 13}\n{"step": 14, "sec']
    )
    def test_what_a_crash_leaves_behind_the_checkpoint_is_made_again(self, copy, same_run, tail):
        with (copy / "metrics.jsonl").open("ab") as file:
            file.write(tail)
        with pytest.warns(CorruptFileWarning, match="ends in an incomplete line"):
            resume(copy)
        same_run(copy)

    @pytest.mark.parametrize(
        "damage", [b"\0\0\0\0\n", b'{"step": 8, "se\n', b"17\n", b'{"stop": 3}\n', b"\xff\xfe\n"]
    )
    def test_a_damaged_line_in_the_middle_does_not_take_the_others_with_it(
        self, copy, same_run, damage
    ):
        log = copy / "metrics.jsonl"
        whole = log.read_bytes().splitlines(keepends=True)
        log.write_bytes(b"".join([*whole[:2], damage, *whole[2:]]))
        run = RunDirectory.open(copy)
        with pytest.warns(
            CorruptFileWarning, match=r"metrics\.jsonl has 1 damaged line, which is left out"
        ):
            assert [line["step"] for line in run.read_log()] == [0, 4, 8, 12]
        with pytest.warns(CorruptFileWarning):
            resume(copy)
        same_run(copy)

    def test_a_line_that_another_process_is_writing_is_nothing_to_warn_of(self, copy):
        with (copy / "metrics.jsonl").open("ab") as file:
            file.write(b'{"step": 14, "lo')
        assert [line["step"] for line in RunDirectory.open(copy).read_log()] == [0, 4, 8, 12]


class TestElsewhere:
    def killed_in_step_8(self, path):
        """As by a signal that nobody can catch: nothing is saved that was not."""
        count = iter(range(100))

        def interrupted():
            if next(count) == 7:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_to_the_end(small(), path, interrupted)
        assert loaded(path)["step"] == 4

    @pytest.mark.parametrize("how", [shutil.copytree, shutil.move])
    def test_a_run_that_was_moved_or_copied_goes_on(self, tmp_path, same_run, how, monkeypatch):
        self.killed_in_step_8(tmp_path / "there")
        (tmp_path / "far/away").mkdir(parents=True)
        how(tmp_path / "there", tmp_path / "far/away/other")
        monkeypatch.chdir(tmp_path / "far/away")
        resume(Path("other"))
        same_run(tmp_path / "far/away/other")

    def test_a_copy_without_empty_directories(self, copy, same_run):
        shutil.rmtree(copy / "samples")
        shutil.rmtree(copy / "checkpoints")
        resume(copy)
        same_run(copy)

    def test_a_clock_that_jumps_backwards(self, tmp_path, monkeypatch, same_run):
        """Neither the wall clock nor the times of files decide anything."""
        now = iter(range(2_000_000_000, 0, -3600))
        monkeypatch.setattr(time, "time", lambda: float(next(now)))
        monkeypatch.setattr(time, "time_ns", lambda: next(now) * 10**9)
        self.killed_in_step_8(tmp_path / "run")
        for age, path in enumerate(sorted((tmp_path / "run").rglob("*"))):
            os.utime(path, (10**9 - 3600 * age, 10**9 - 3600 * age))
        resume(tmp_path / "run")
        same_run(tmp_path / "run")
        seconds = [line["seconds"] for line in RunDirectory.open(tmp_path / "run").read_log()]
        assert seconds == sorted(seconds)
