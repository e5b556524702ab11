"""Tests of the store: nothing lost, nothing done twice, nothing of others overwritten."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from stepsize import store, sweep
from stepsize.engines import sweep as engine
from stepsize.store import SCHEMA, Store, StoreError

SETTINGS = {"sgd": {"lr": [0.1, 0.3]}, "nag": {"lr": [0.1]}}


def small(path, **changes):
    return sweep(**{"task": "digits-mlp", "optimizers": SETTINGS, "seeds": 2, "steps": 20, "store": path, **changes})


def without_clock(frame):
    return frame.drop(columns="seconds")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


def test_second_call_trains_nothing_and_gives_the_same(path, monkeypatch):
    first = small(path)
    monkeypatch.setattr(engine, "train", lambda *arguments: pytest.fail("a finished run was done again"))
    second = small(path)
    assert (first.done, first.found) == (6, 0)
    assert (second.done, second.found) == (0, 6)
    pd.testing.assert_frame_equal(first.frame(), second.frame())
    pd.testing.assert_frame_equal(first.curves("batch_loss"), second.curves("batch_loss"))


def test_what_is_kept_on_disk_is_what_is_kept_in_memory(path):
    on_disk, in_memory = small(path), small(None)
    pd.testing.assert_frame_equal(without_clock(on_disk.frame()), without_clock(in_memory.frame()))
    pd.testing.assert_frame_equal(on_disk.curves("test_error"), in_memory.curves("test_error"))


def test_opened_store_gives_the_runs_that_were_asked_for(path):
    runs = small(path)
    opened = store.open(path)
    pd.testing.assert_frame_equal(opened.frame(), runs.frame())
    pd.testing.assert_frame_equal(opened.summary(), runs.summary())


def test_larger_sweep_trains_only_what_is_new(path):
    small(path)
    wider = small(path, optimizers={"sgd": {"lr": [0.03, 0.1, 0.3]}}, seeds=3)
    assert (wider.done, wider.found) == (5, 4)
    pd.testing.assert_frame_equal(
        without_clock(wider.frame()),
        without_clock(small(None, optimizers={"sgd": {"lr": [0.03, 0.1, 0.3]}}, seeds=3).frame()),
    )


def test_settings_of_an_opened_store_go_by_their_numbers(path):
    small(path, optimizers={"sgd": {"lr": [10.0, 0.2, 1e-5]}}, seeds=1, steps=2)
    assert store.open(path).frame()["lr"].tolist() == [1e-5, 0.2, 10.0]


def test_of_runs_made_by_older_code_only_the_newest_is_shown(path):
    runs = small(path)
    row = runs.store.rows(runs.keys[:1])[0]
    curves = {"batch_loss": ([1], [7.0])}
    runs.store.add([row | {"key": "made by newer code", "curves": curves, "seconds": 7.0}])
    frame = store.open(path).frame()
    assert len(frame) == 6
    assert frame["seconds"][0] == 7.0
    assert frame["key"][0] == "made by newer code"


def test_run_written_by_another_meanwhile_stays_as_it_is(path):
    runs = small(path)
    row = runs.store.rows(runs.keys[:1])[0]
    runs.store.add([row | {"seconds": -1.0, "curves": {"batch_loss": ([1], [7.0])}}])
    assert small(path).frame()["seconds"].min() > 0
    assert len(small(path).curves("batch_loss")) == 6 * 20


def test_curve_comes_back_as_it_was(path):
    values = [1.5, float("nan"), float("inf"), 1e-30]
    runs = small(path)
    row = runs.store.rows(runs.keys[:1])[0]
    runs.store.add([row | {"key": "k", "curves": {"loss": ([0, 1, 10, 100_000], values)}}])
    steps, found = runs.store.curve("k", "loss")
    assert steps.tolist() == [0, 1, 10, 100_000]
    np.testing.assert_array_equal(found, np.array(values, "f4"))


def test_empty_store_says_so(path):
    Store(path).close()
    assert len(store.open(path)) == 0
    with pytest.raises(ValueError, match=r"there are no runs in .*runs\.db yet"):
        store.open(path).summary()


class TestWhatIsNotAStore:
    def refused(self, path, message):
        before = path.read_bytes()
        for use in (store.open, small):
            with pytest.raises(StoreError, match=message) as caught:
                use(path)
            assert "\n" not in str(caught.value)
        assert path.read_bytes() == before

    def test_file_of_text_is_refused_and_left_alone(self, path):
        path.write_text("lr,loss\n0.1,2.3\n" * 100)
        self.refused(path, "is not a store of stepsize; nothing was changed")

    def test_database_of_others_is_refused_and_left_alone(self, path):
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE runs (key TEXT)")
        other.close()
        self.refused(path, "is a database, but not a store of stepsize; nothing was changed")

    def test_store_of_a_newer_version_is_refused_and_left_alone(self, path):
        small(path).store.close()
        with sqlite3.connect(path) as newer:
            newer.execute(f"PRAGMA user_version = {SCHEMA + 1}")
            newer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        newer.close()
        self.refused(path, rf"was written by a newer stepsize \(schema {SCHEMA + 1}, this one knows {SCHEMA}\)")

    def test_damaged_store_is_refused_and_left_alone(self, path):
        small(path).store.close()
        whole = path.read_bytes()
        path.write_bytes(whole[:4096] + b"\x00\xff" * 2048 + whole[8192:])
        self.refused(path, "is damaged; nothing was changed: restore a copy, or name another file")

    def test_truncated_store_is_refused_and_left_alone(self, path):
        small(path).store.close()
        path.write_bytes(path.read_bytes()[:6000])
        self.refused(path, "is damaged; nothing was changed")

    def test_missing_file_is_not_made_by_opening_it(self, path):
        with pytest.raises(StoreError, match=r"there is no store .*runs\.db"):
            store.open(path)
        assert not path.exists()

    def test_missing_folder_is_named(self, tmp_path):
        with pytest.raises(StoreError, match=r"there is no folder .*nowhere to hold the store"):
            small(tmp_path / "nowhere" / "runs.db")

    def test_folder_is_not_a_store(self, tmp_path):
        with pytest.raises(StoreError, match="cannot be used"):
            small(tmp_path)

    def test_full_disk_loses_nothing_that_was_there(self, path):
        runs = small(path)
        (pages,) = runs.store._db.execute("PRAGMA page_count").fetchone()
        runs.store._db.execute(f"PRAGMA max_page_count = {pages}")
        row = runs.store.rows(runs.keys[:1])[0]
        rows = [row | {"key": str(i), "curves": {"loss": (range(5000), np.zeros(5000))}} for i in range(20)]
        with pytest.raises(StoreError, match=r"the disk that holds .*runs\.db is full; what is in the store is safe"):
            runs.store.add(rows)
        assert len(store.open(path)) == 6


# A sweep in pieces of two runs, so that there is a middle to be killed in.
COMMAND = """
import sys, stepsize.engines.sweep as engine
from stepsize.cli import main
engine.RUNS = 2
sys.exit(main(["sweep", "digits-mlp", "-o", "sgd", "-o", "nag", "--lr", "1e-2:1:3", "--seeds", "3", "--steps", "2000",
               "--store", sys.argv[1]]))
"""


def start(path):
    command = [sys.executable, "-c", COMMAND, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(path, process, least=1):
    for _ in range(1200):
        assert process.poll() is None, "it ended before it could be stopped"
        if path.exists() and path.stat().st_size and len(Store(path).keys()) >= least:
            return
        time.sleep(0.05)
    pytest.fail("no run was written within a minute")


def tables(output):
    """All but the line that says how many were trained now."""
    return [line for line in output.splitlines() if "trained now" not in line]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken") / "runs.db"
    output, errors = start(path).communicate(timeout=300)
    assert re.search(r"18 trained now \(.*\), 0 found", output), errors
    return path, output


def test_killed_sweep_resumes_and_gives_the_table_of_an_unbroken_one(path, unbroken):
    for rows in (2, 10):
        process = start(path)
        wait_for_rows(path, process, rows)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    kept = len(Store(path).keys())
    output, _ = start(path).communicate(timeout=300)
    assert 10 <= kept < 18
    assert re.search(rf"{18 - kept} trained now \(.*\), {kept} found", output)
    assert tables(output) == tables(unbroken[1])
    pd.testing.assert_frame_equal(
        without_clock(store.open(path).frame()), without_clock(store.open(unbroken[0]).frame())
    )


def test_two_processes_write_one_store_and_no_run_is_lost(path, unbroken):
    both = [start(path), start(path)]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert tables(outputs[0][0]) == tables(outputs[1][0]) == tables(unbroken[1])
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM runs").fetchone() == (18,)
        assert db.execute("SELECT count(DISTINCT key) FROM curves").fetchone() == (18,)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_ends_with_a_sentence_and_keeps_what_was_done(path):
    process = start(path)
    wait_for_rows(path, process, 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert errors.splitlines()[-1].startswith("stepsize: stopped; ")
    assert "Traceback" not in errors
    assert 2 <= len(Store(path).keys()) < 18


def test_second_writer_waits_for_the_first(path):
    runs = small(path)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    code = f"import stepsize.store as s; print(len(s.open({str(path)!r}))); x = s.Store({str(path)!r}); x.add([])"
    writer = subprocess.Popen(
        [sys.executable, "-c", code + "; x._db.execute('BEGIN IMMEDIATE'); print('wrote')"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout.readline().strip() == str(len(runs))
    time.sleep(0.5)
    assert writer.poll() is None
    blocker.execute("COMMIT")
    assert writer.communicate(timeout=60)[0].strip() == "wrote"
