"""The database of trials fails while it is used: an error, and finished trials are kept."""

import shutil

import pytest
import sqlalchemy

from saddlepoint.compare.storage import open_search, open_storage
from saddlepoint.compare.tuning import run_trials
from saddlepoint.errors import UsageError
from tests.reliability.databases import KEPT, finished, searched


def full(storage, pages=1):
    """Let the database grow by so many pages from now on, as on a full disk."""

    @sqlalchemy.event.listens_for(storage.engine, "checkout")
    def limit(connection, *_):
        (now,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={now + pages}")

    storage.engine.dispose()


def test_a_full_disk(tmp_path, monkeypatch):
    # for the trial that was under way: its end could not be written either
    monkeypatch.setattr("saddlepoint.compare.tuning._GRACE", 0.5)
    url, made = f"sqlite:///{tmp_path / 'tuning.db'}", []

    def work(trial, index, heartbeat):
        made.append(index)
        return 0.5, KEPT | {"error": "x" * 5000}

    def search(n_trials, limit=lambda storage: None):
        with open_storage(url) as storage:
            opened = open_search(storage, "search")
            run_trials(opened, 1, work, lambda: None)
            limit(storage)
            return run_trials(opened, n_trials, work, lambda: None)

    with pytest.raises(
        UsageError, match=r"tuning\.db failed: database or disk is full\. Finished trials are kept"
    ):
        search(50, full)
    assert 1 <= len(made) < 50
    made.clear()
    assert len(search(50)) == 50
    assert 0 not in made


def test_a_file_that_is_overwritten_meanwhile(tmp_path):
    path = tmp_path / "tuning.db"
    shutil.copy(finished(), path)

    def overwrite():
        with open_storage(f"sqlite:///{path}") as storage:
            path.write_bytes(b"\0" * path.stat().st_size)
            storage.engine.dispose()
            open_search(storage, "search")

    with pytest.raises(
        UsageError, match=r"tuning\.db failed: (file is not a database|no such table)"
    ):
        overwrite()


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "tuning.db"
    path.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(UsageError, match=r"Cannot open the storage .*file is not a database"):
        searched(path)


def test_a_trial_that_vanishes_is_not_made_for_ever(tmp_path):
    path = tmp_path / "tuning.db"
    with open_storage(f"sqlite:///{path}") as storage:
        search = open_search(storage, "search")

        def work(trial, index, heartbeat):
            with storage.engine.begin() as connection:
                connection.execute(sqlalchemy.text("UPDATE trials SET study_id = NULL"))
            return 0.5, KEPT

        with pytest.raises(UsageError, match="was finished, and is missing now"):
            run_trials(search, 1, work, lambda: None)
