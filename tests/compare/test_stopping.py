"""Signals, dead processes, messages about waiting, progress, cancelling."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import ClassVar

import pytest

from saddlepoint.compare import compare
from saddlepoint.compare.comparison import Count, ProgressCounter, SilentWatcher, WaitMessages
from saddlepoint.compare.execution import _exit_reason, failed_result, run_in_subprocess
from saddlepoint.compare.runs import RunId
from saddlepoint.compare.storage import (
    LAST_STATEMENT_SECONDS,
    STATEMENT_SECONDS,
    Worker,
    _StatementLimit,
    open_search,
    open_storage,
)
from saddlepoint.compare.tuning import run_trials
from saddlepoint.errors import UsageError
from tests.compare.test_execution import job


def children():
    """The processes of this process group that are forked from the server of runs, or are that
    server."""
    found = subprocess.run(
        ["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    rows = [line.split(maxsplit=2) for line in found]
    servers = {
        pid for pid, parent, words in rows if int(parent) == os.getpid() and "forkserver" in words
    }
    return [int(pid) for pid, parent, _ in rows if pid in servers or parent in servers]


class TestSignals:
    def test_those_to_a_whole_group_do_not_reach_runs(self, tmp_path):
        """The server and the run get all of them, as a time limit or a closed terminal sends them;
        the run ends as it would."""
        sent, file = [], tmp_path / "sent"

        def to_all():
            pids = children()
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                for pid in pids:
                    os.kill(pid, number)
                    sent.append(pid)
            if pids:  # else the next second finds them
                file.touch()

        result = run_in_subprocess(
            job(optimizer={"name": "tests.compare.deadly:Patient", "lr": 0.1, "until": str(file)}),
            heartbeat=to_all,
        )
        assert result["status"] == "finished", result
        assert sent

    def test_this_process_still_gets_them(self):
        run_in_subprocess(job())
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
        }

    def test_the_signal_that_killed_a_run_is_reported(self):
        assert "killed by signal 9 (SIGKILL)" in _exit_reason(-9)
        assert "killed by signal 11 (SIGSEGV)" in _exit_reason(-11)
        assert "exit code 3" in _exit_reason(3)


def worker_at(host, pid, start_time, pid_namespace):
    return Worker(host=host, pid=pid, start_time=start_time, pid_namespace=pid_namespace)


class TestDeadProcesses:
    @pytest.fixture
    def storage(self, tmp_path):
        with open_storage(f"sqlite:///{tmp_path / 'tuning.db'}") as opened:
            yield opened

    def left_by(self, storage, worker):
        search = open_search(storage, "search")
        trial = search.ask()
        trial.set_user_attr("worker", worker.model_dump())
        trial.set_user_attr("index", 0)
        trial.set_user_attr("heartbeat", time.time())
        return search

    def test_on_this_machine_are_not_waited_for(self, storage):
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            pass
        here = Worker.current()
        for worker in (
            worker_at(here.host, process.pid, "1", here.pid_namespace),
            worker_at(here.host, os.getpid(), "1", here.pid_namespace),
        ):
            assert worker.is_alive() is False
        search = self.left_by(storage, worker)
        trials = run_trials(search, 1, lambda *_: (0.5, {}), lambda: None, on_wait=pytest.fail)
        assert [trial.value for trial in trials] == [0.5]

    @pytest.mark.parametrize(
        "worker",
        [
            worker_at("elsewhere", 1, "2", "another boot"),
            Worker.current(),
            worker_at("h", 1, "", ""),
        ],
    )
    def test_others_may_live(self, worker):
        assert worker.is_alive() is not False

    def test_another_machine_is_waited_for_by_name(self, storage, monkeypatch):
        monkeypatch.setattr("saddlepoint.compare.tuning._GRACE", 1.5)
        said = []
        search = self.left_by(storage, worker_at("elsewhere", 7, "2", "another boot"))
        run_trials(search, 1, lambda *_: (0.5, {}), lambda: None, on_wait=said.append)
        assert "trial 0 of process 7 on elsewhere" in said[0]


class TestWaiting:
    def test_it_is_reported_at_once_and_every_half_minute(self, monkeypatch):
        now, said = [0.0], []
        monkeypatch.setattr("saddlepoint.compare.comparison.time.monotonic", lambda: now[0])
        waiting = WaitMessages(said.append)
        for now[0] in (0.0, 1.0, 29.0, 31.0, 40.0):
            waiting("process 7")
        waiting("process 8")
        assert said == [
            "waiting for process 7, since 0 s",
            "waiting for process 7, since 31 s",
            "waiting for process 8, since 0 s",
        ]

    def test_for_a_run_of_another_process(self, small_study, recorded, tmp_path):
        from saddlepoint.compare.directory import ComparisonDirectory

        class Watcher(SilentWatcher):
            notes: ClassVar[list[str]] = []

            def note(self, text):
                self.notes.append(text)
                held.set()

        study, held = small_study(methods=["adam"], seeds=1), threading.Event()
        with ComparisonDirectory.open(tmp_path, study) as directory:
            claim = directory.lock(RunId("tiny ring", "adam", 0))
            claim.__enter__()
            thread = threading.Thread(
                target=compare,
                args=(study, tmp_path),
                kwargs={"execute": recorded(), "watcher": Watcher()},
            )
            thread.start()
            assert held.wait(60)
            claim.__exit__(None, None, None)
            thread.join()
        assert f"waiting for process {os.getpid()} on" in Watcher.notes[0]
        assert "tiny ring, adam, seed-0" in Watcher.notes[0]


class TestProgress:
    def test_runs_and_trials_are_counted(self, small_study, monkeypatch):
        now = [0.0]
        monkeypatch.setattr("saddlepoint.compare.comparison.time.monotonic", lambda: now[0])
        study = small_study(
            tuning={"trials": 3, "finalists": 2},
            problem={"robustness": {"factors": [0.1], "seeds": 1}},
        )
        progress, plan = ProgressCounter(study, jobs=2), study.problems[0]
        assert progress.count() == Count(0, 2 * (3 + 2 + 2 + 1), None)
        progress.trial_finished(plan, "adam")
        now[0] = 10.0
        assert progress.count() == Count(1, 16, 150.0)
        progress.search_finished(plan, "adam")
        progress.run_finished(plan, RunId("tiny ring", "adam", 0), here=False)
        assert progress.count().finished == 6

    def test_budgets_in_seconds_are_known_before(self, small_study):
        study = small_study(problem={"budget": {"seconds": 30}})
        assert ProgressCounter(study, jobs=2).count() == Count(0, 4, 60.0)

    def test_at_the_end_of_a_comparison(self, small_study, recorded, tmp_path):
        class Watcher(SilentWatcher):
            counts: ClassVar[list[Count]] = []

            def progress(self, count):
                self.counts.append(count)

        study = small_study(tuning={"trials": 2})
        for _ in range(2):
            compare(
                study,
                tmp_path,
                execute=recorded(result=lambda job: failed_result("x")),
                watcher=Watcher(),
            )
        assert [count.finished for count in Watcher.counts] == sorted(
            count.finished for count in Watcher.counts
        )
        assert Watcher.counts[-1] == Count(12, 12, None)


class TestMistakes:
    def test_are_reported_at_once(self, small_study, recorded, tmp_path):
        """Not when the runs before them have ended."""

        def execute(job, heartbeat):
            if job.config["seed"] == 1:
                raise UsageError("a mistake")
            while True:
                heartbeat()
                time.sleep(0.01)

        with pytest.raises(UsageError, match="a mistake"):
            compare(small_study(methods=["adam"]), tmp_path, jobs=2, execute=execute)

    def test_a_reader_that_goes_away_keeps_what_is_finished(self, small_study, recorded, tmp_path):
        class Watcher(SilentWatcher):
            def run(self, *_):
                raise BrokenPipeError

        with pytest.raises(BrokenPipeError):
            compare(
                small_study(),
                tmp_path,
                execute=recorded(result=lambda job: failed_result("x")),
                watcher=Watcher(),
            )
        assert (tmp_path / "comparison.json").is_file()


class TestEndlessStatements:
    @pytest.fixture
    def endless(self, tmp_path):
        """A database in which no trial can be begun: a trigger computes for ever."""
        url = f"sqlite:///{tmp_path / 'tuning.db'}"
        with open_storage(url) as storage:
            open_search(storage, "search")
            with storage.engine.begin() as connection:
                connection.exec_driver_sql(
                    "CREATE TRIGGER endless AFTER INSERT ON trials BEGIN INSERT INTO"
                    " studies(study_name) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1"
                    " FROM n) SELECT x FROM n WHERE x < 0; END"
                )
        return url

    def test_are_ended(self, endless, monkeypatch):
        monkeypatch.setattr("saddlepoint.compare.storage.STATEMENT_SECONDS", 0.2)
        monkeypatch.setattr("saddlepoint.compare.storage.LAST_STATEMENT_SECONDS", 0.05)
        with (
            pytest.raises(UsageError, match=r"tuning\.db failed: a statement did not end within"),
            open_storage(endless) as storage,
        ):
            run_trials(open_search(storage, "search"), 1, lambda *_: (0.5, {}), lambda: None)

    def test_have_less_time_when_the_search_is_stopped(self):
        stopping = threading.Event()
        limit = _StatementLimit(stopping)
        assert limit.seconds == STATEMENT_SECONDS
        stopping.set()
        assert limit.seconds == LAST_STATEMENT_SECONDS < STATEMENT_SECONDS
