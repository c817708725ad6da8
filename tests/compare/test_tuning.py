"""Tuning: equal numbers of trials, on their own seeds, in many processes, in any database."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import optuna
import pytest

from saddlepoint.compare.execution import failed_result
from saddlepoint.compare.storage import open_search, open_storage
from saddlepoint.compare.study import TuningPlan
from saddlepoint.compare.tuning import run_trials, tune
from saddlepoint.errors import UsageError


def run(study, storage, execute, trials=4, method="adam", **plan):
    tuning = TuningPlan(**{"trials": trials, "finalists": 1, **plan})
    return tune(
        study.problems[0],
        study.methods[method],
        tuning,
        name="test",
        storage=storage,
        execute=execute,
    )


def valley(job):
    """An result whose mode_distance is least at a learning rate of 1e-3."""
    rate = job.config["optimizer"]["lr"]
    value = abs(rate - 1e-3)
    return {
        **failed_result(""),
        "status": "finished",
        "error": None,
        "metrics": {"ema/mode_distance": value},
        "steps": 1,
        "seconds": 1.0,
    }


@pytest.fixture
def storage(tmp_path):
    with open_storage(f"sqlite:///{tmp_path / 'tuning.db'}") as opened:
        yield opened


class TestSearch:
    def test_the_first_trial_has_the_defaults_of_the_method_and_the_best_is_kept(
        self, small_study, recorded, storage
    ):
        found = run(small_study(), storage, recorded(result=valley), trials=12)
        assert found.trials[0]["parameters"] == {
            "optimizer.lr": 2e-3,
            "ratio": 0.5,
            "optimizer.betas": [0.0, 0.999],
        }
        assert found.best == min(found.trials, key=lambda trial: trial["value"])["parameters"]
        assert abs(found.best["optimizer.lr"] - 1e-3) < 1e-3
        assert found.space["optimizer.lr"] == {"log": [3e-4, 1e-2]}

    def test_trials_are_on_the_tuning_seed_and_at_their_parameters(
        self, small_study, recorded, storage
    ):
        runner = recorded(result=valley)
        found = run(small_study(), storage, runner)
        assert {job.config["seed"] for job in runner.jobs} == {100}
        assert [job.config["optimizer"]["lr"] for job in runner.jobs] == [
            trial["parameters"]["optimizer.lr"] for trial in found.trials
        ]
        ratios = [
            job.config["optimizer"]["players"]["discriminator"]["lr"]
            / job.config["optimizer"]["lr"]
            for job in runner.jobs
        ]
        assert ratios == pytest.approx([trial["parameters"]["ratio"] for trial in found.trials])

    def test_a_search_does_not_depend_on_interruptions(self, small_study, recorded, tmp_path):
        with open_storage(f"sqlite:///{tmp_path / 'a.db'}") as a:
            straight = run(small_study(), a, recorded(result=valley), trials=8)
        for most in (2, 3):
            with (
                open_storage(f"sqlite:///{tmp_path / 'b.db'}") as b,
                pytest.raises(KeyboardInterrupt),
            ):
                run(small_study(), b, recorded(most=most, result=valley), trials=8)
        with open_storage(f"sqlite:///{tmp_path / 'b.db'}") as b:
            broken = run(small_study(), b, recorded(result=valley), trials=8)
        assert broken == straight

    def test_a_diverged_trial_is_a_finished_trial(self, small_study, recorded, storage):
        def diverges_above(job):
            return (
                valley(job)
                if job.config["optimizer"]["lr"] < 2e-3
                else {**failed_result("overflow"), "status": "diverged"}
            )

        found = run(small_study(), storage, recorded(result=diverges_above), trials=10)
        assert len(found.trials) == 10
        lost = [trial for trial in found.trials if trial["status"] == "diverged"]
        assert lost
        assert all(trial["value"] is None and trial["error"] == "overflow" for trial in lost)
        assert found.best["optimizer.lr"] < 2e-3

    def test_the_value_is_the_mean_over_the_seeds(self, small_study, recorded, storage):
        runner = recorded(
            result=lambda job: (
                valley(job) | {"metrics": {"ema/mode_distance": float(job.config["seed"])}}
            )
        )
        found = run(small_study(), storage, runner, trials=1, seeds=(100, 102))
        assert found.trials[0]["value"] == 101

    def test_finalists_show_whether_they_were_lucky(self, small_study, recorded, storage):
        def lucky_once(job):
            """At rates above 2e-3 seed 100 is lucky, and no other."""
            rate, seed = job.config["optimizer"]["lr"], job.config["seed"]
            return valley(job) | {
                "metrics": {
                    "ema/mode_distance": (0.0 if seed == 100 else 1.0) if rate > 2e-3 else 0.5
                }
            }

        runner = recorded(result=lucky_once)
        found = run(small_study(), storage, runner, trials=8, finalists=8, final_seeds=(101, 102))
        values = [trial["value"] for trial in found.trials]
        assert {0.0, 0.5} == set(values)
        assert found.best["optimizer.lr"] <= 2e-3
        assert {job.config["seed"] for job in runner.jobs} == {100, 101, 102}
        assert len(runner.jobs) == 8 + 8 * 2
        assert {round(trial["final"], 3) for trial in found.trials} == {0.5, 0.667}

    def test_only_the_best_are_finalists(self, small_study, recorded, storage):
        found = run(small_study(), storage, recorded(result=valley), trials=6, finalists=2)
        finalists = [trial["number"] for trial in found.trials if trial["final"] is not None]
        assert sorted(finalists) == sorted(
            sorted(range(6), key=lambda index: found.trials[index]["value"])[:2]
        )

    def test_a_method_without_hyperparameters_needs_no_trial(self, small_study, recorded, storage):
        runner = recorded()
        study = small_study(methods={"adam": {"space": {}}})
        assert run(study, storage, runner).best == {}
        assert runner.jobs == []

    def test_a_trial_of_a_killed_process_is_made_again(
        self, small_study, recorded, storage, monkeypatch
    ):
        run(small_study(), storage, recorded(result=valley), trials=2)
        name = next(iter(optuna.get_all_study_names(storage)))
        search = optuna.load_study(study_name=name, storage=storage)
        search.ask().set_user_attr("index", 2)  # nobody will ever say how it ended
        monkeypatch.setattr("saddlepoint.compare.tuning._GRACE", 0)
        monkeypatch.setattr(
            "saddlepoint.compare.tuning._search_key", lambda *_: name.rpartition("/")[2]
        )
        time.sleep(0.01)
        assert len(run(small_study(), storage, recorded(result=valley), trials=3).trials) == 3


class TestOneIndexAtOnce:
    """Two processes find the same index free at the same time: one of them runs its trial."""

    @staticmethod
    def other_takes(search, index):
        """Return a function that first stores the index of another process's trial, which has a
        lower number, and then ends that trial."""
        other = search.ask()

        def check_cancelled():
            if "index" not in other.user_attrs:
                other.set_user_attr("index", index)
            else:
                search.tell(other, 0.5)

        return check_cancelled

    def test_the_higher_number_gives_way(self, storage):
        search = open_search(storage, "race")
        check_cancelled = self.other_takes(search, 0)

        def never(trial, index, heartbeat):
            raise AssertionError("made twice")

        assert [trial.value for trial in run_trials(search, 1, never, check_cancelled)] == [0.5]

    def test_it_stays_where_the_other_takes_another_index(self, storage):
        search = open_search(storage, "side by side")
        check_cancelled, made = self.other_takes(search, 1), []

        def work(trial, index, heartbeat):
            made.append(index)
            return 0.25, {}

        assert [trial.value for trial in run_trials(search, 2, work, check_cancelled)] == [
            0.25,
            0.5,
        ]
        assert made == [0]


class TestAClockThatIsSetBack:
    def test_whoever_works_is_still_heard_of(self, storage, monkeypatch):
        monkeypatch.setattr("saddlepoint.compare.tuning._HEARTBEAT", 0)
        now = iter(range(10**9, 0, -3600))
        monkeypatch.setattr("saddlepoint.compare.tuning.time.time", lambda: next(now))
        search, beats = open_search(storage, "set back"), []

        def work(trial, index, heartbeat):
            for _ in range(2):
                heartbeat()
                beats.append(trial.user_attrs["heartbeat"])
            return 0.25, {}

        run_trials(search, 1, work, lambda: None)
        assert beats[1] < beats[0], "the second one was written as well"

    def test_whoever_died_before_it_is_given_up(self, storage):
        search = open_search(storage, "from the future")
        dead = search.ask()
        dead.set_user_attr("index", 0)
        dead.set_user_attr("heartbeat", time.time() + 3600)
        trials = run_trials(search, 1, lambda *_: (0.25, {}), lambda: None)
        assert [trial.value for trial in trials] == [0.25]


class TestStorage:
    @pytest.mark.parametrize(
        "url", ["nonsense", "oracle9://host/base", "sqlite:////no/such/directory/study.db"]
    )
    def test_errors_of_opening_are_reported(self, url):
        with pytest.raises(UsageError, match="Cannot open the storage"), open_storage(url):
            pass

    def test_passwords_are_not_shown(self):
        with pytest.raises(UsageError) as error, open_storage("nonsense://me:secret@host/base"):
            pass
        assert "secret" not in str(error.value)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """The URL of a real PostgreSQL server, started for these tests."""
    pytest.importorskip(
        "psycopg", reason="the driver psycopg is not installed", exc_type=ImportError
    )
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (str(installed[-1]) if installed else None)
    if initdb is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    home = tmp_path_factory.mktemp("postgres")
    # the server refuses to run as root
    user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if user and shutil.which("runuser") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no runuser")
    for folder in [home, *home.parents][:4]:
        if user and folder.stat().st_uid == 0:
            folder.chmod(folder.stat().st_mode | 0o711)
    if user:
        shutil.chown(home, "postgres")
    tools = Path(initdb).parent
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "cwd": home}
    subprocess.run(
        [
            *user,
            initdb,
            "-D",
            home / "data",
            "-A",
            "trust",
            "-U",
            "tester",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ],
        **quiet,
    )
    options = f"-k {home} -c listen_addresses='' -c fsync=off"
    subprocess.run(
        [
            *user,
            tools / "pg_ctl",
            "-D",
            home / "data",
            "-o",
            options,
            "-l",
            home / "log",
            "-w",
            "start",
        ],
        **quiet,
    )
    try:
        yield f"postgresql+psycopg://tester@/postgres?host={home}"
    finally:
        subprocess.run(
            [*user, tools / "pg_ctl", "-D", home / "data", "-m", "immediate", "stop"], **quiet
        )


class TestPostgres:
    def test_a_search_in_a_server_is_that_in_a_file(self, small_study, recorded, storage, postgres):
        in_file = run(small_study(), storage, recorded(result=valley), trials=6)
        with open_storage(postgres) as server:
            in_server = run(small_study(), server, recorded(result=valley), trials=6)
        assert in_server == in_file

    def test_a_search_is_found_again_from_elsewhere(self, small_study, recorded, postgres):
        study, runner = small_study(methods=["sign"]), recorded(result=valley)
        with open_storage(postgres) as server:
            first = run(study, server, recorded(result=valley), trials=3, method="sign")
        with open_storage(postgres) as server:
            again = run(study, server, runner, trials=3, method="sign")
        assert runner.jobs == []
        assert again == first
