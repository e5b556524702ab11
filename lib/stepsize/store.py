"""Runs, kept: a SQLite file with one row per run, its curves, and checkpoints of the runs in training."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .runs import Runs

SCHEMA = 2
# "step" in ASCII: marks the file as ours.
APPLICATION = 0x73746570
# Seconds a second writer waits for the first.
PATIENCE = 60.0

# Columns that hold JSON.
JSON = ("hyper", "metrics", "made", "larger")

DAMAGED = "is damaged; nothing was changed: restore a copy, or name another file"

TABLES = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, task TEXT NOT NULL, optimizer TEXT NOT NULL,
    hyper TEXT NOT NULL, seed INTEGER NOT NULL, steps INTEGER NOT NULL, metrics TEXT NOT NULL,
    diverged INTEGER NOT NULL, seconds REAL NOT NULL, state_bytes INTEGER NOT NULL, made TEXT NOT NULL,
    larger TEXT NOT NULL DEFAULT '[]', stopped INTEGER
);
CREATE TABLE curves (
    key TEXT NOT NULL REFERENCES runs (key), metric TEXT NOT NULL, steps BLOB NOT NULL, vals BLOB NOT NULL,
    PRIMARY KEY (key, metric)
) WITHOUT ROWID;
CREATE TABLE checkpoints (key TEXT PRIMARY KEY, step INTEGER NOT NULL, state BLOB NOT NULL);
"""
# What a store of an older schema lacks.
UPDATES = {
    1: """
ALTER TABLE runs ADD COLUMN larger TEXT NOT NULL DEFAULT '[]';
ALTER TABLE runs ADD COLUMN stopped INTEGER;
CREATE TABLE checkpoints (key TEXT PRIMARY KEY, step INTEGER NOT NULL, state BLOB NOT NULL);
"""
}


class StoreError(ValueError):
    """The file cannot serve as a store; the message says why, and nothing in it was changed."""


class Store:
    """One SQLite file of runs (``":memory:"`` for none). Several processes may write it at once.

    ``check`` reads the whole file once, to find damage.
    """

    def __init__(self, path: str | Path = ":memory:", *, create: bool = True, check: bool = True) -> None:
        self.path = str(path)
        if self.path != ":memory:":
            if not Path(path).exists() and not create:
                raise StoreError(f"there is no store {self.path}")
            if not Path(path).absolute().parent.is_dir():
                raise StoreError(f"there is no folder {Path(path).absolute().parent} to hold the store")
        # Threads of one process take turns.
        self._turn = threading.RLock()
        with self._plain_words():
            self._db = sqlite3.connect(self.path, timeout=PATIENCE, check_same_thread=False)
            try:
                self._check_or_create(check)
            except BaseException:
                self._db.close()
                raise

    def _check_or_create(self, check: bool) -> None:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        (schema,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application == 0 and schema == 0 and tables == 0:
            self._db.execute("PRAGMA journal_mode = WAL")
            # Two processes may both find the file new: the second waits here, and looks again.
            self._db.execute("BEGIN IMMEDIATE")
            if not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._run(TABLES)
                self._db.execute(f"PRAGMA application_id = {APPLICATION}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA}")
            self._db.commit()
        elif application != APPLICATION:
            raise StoreError(f"{self.path} is a database, but not a store of stepsize; nothing was changed")
        elif schema > SCHEMA:
            raise StoreError(
                f"{self.path} was written by a newer stepsize (schema {schema}, this one knows {SCHEMA}): "
                "update stepsize, or name another file"
            )
        if check:
            (state,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise StoreError(f"{self.path} {DAMAGED}")
        if schema in UPDATES and application == APPLICATION:
            self._db.execute("BEGIN IMMEDIATE")
            if self._db.execute("PRAGMA user_version").fetchone() == (schema,):
                self._run(UPDATES[schema])
                self._db.execute(f"PRAGMA user_version = {SCHEMA}")
            self._db.commit()

    def _run(self, statements: str) -> None:
        for statement in statements.split(";")[:-1]:
            self._db.execute(statement)

    @contextmanager
    def _plain_words(self) -> Iterator[None]:
        try:
            with self._turn:
                yield
        except sqlite3.Error as error:
            if "malformed" in str(error):
                raise StoreError(f"{self.path} {DAMAGED}") from error
            if "is full" in str(error):
                raise StoreError(
                    f"the disk that holds {self.path} is full; what is in the store is safe: free some space, "
                    "and the same command goes on from there"
                ) from error
            if "not a database" in str(error):
                raise StoreError(f"{self.path} is not a store of stepsize; nothing was changed") from error
            raise StoreError(f"the store {self.path} cannot be used ({error})") from error

    @property
    def on_disk(self) -> bool:
        """Whether there is a file, which other processes can open too."""
        return self.path != ":memory:"

    @property
    def name(self) -> str:
        """The file, in words."""
        return self.path if self.on_disk else "memory"

    def close(self) -> None:
        """Close the file; SQLite folds what it kept beside it (``-wal``) into it."""
        self._db.close()

    def known(self, keys: Iterable[str]) -> set[str]:
        """Which of ``keys`` are in the store."""
        with self._plain_words():
            return {key for key in keys if self._db.execute("SELECT 1 FROM runs WHERE key = ?", (key,)).fetchone()}

    def keys(self) -> list[str]:
        """The keys of all runs, by task, steps, optimizer, hyper-parameters and seed.

        Of runs that differ only in the code, engine or device that made them, the newest alone.
        """
        newest = "SELECT max(number) FROM runs GROUP BY task, optimizer, hyper, seed, steps"
        query = f"SELECT number, key, task, steps, optimizer, hyper, seed FROM runs WHERE number IN ({newest})"
        with self._plain_words():
            rows = self._db.execute(query).fetchall()
        first: dict[str, int] = {}
        for number, _, _, _, optimizer, _, _ in rows:
            first[optimizer] = min(number, first.get(optimizer, number))
        rows.sort(key=lambda row: (row[2], row[3], first[row[4]], _order(json.loads(row[5])), row[6]))
        return [row[1] for row in rows]

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write finished runs in one transaction; a run that another process has written meanwhile stays as it is."""
        with self._plain_words(), self._db:
            for row in rows:
                plain = {**row, **{name: json.dumps(row[name]) for name in JSON}}
                curves = plain.pop("curves")
                names = ", ".join(plain)
                marks = ", ".join("?" * len(plain))
                new = self._db.execute(f"INSERT OR IGNORE INTO runs ({names}) VALUES ({marks})", list(plain.values()))
                if new.rowcount:
                    self._db.executemany(
                        "INSERT INTO curves VALUES (?, ?, ?, ?)",
                        [
                            (row["key"], metric, np.asarray(at, "<i4").tobytes(), np.asarray(values, "<f4").tobytes())
                            for metric, (at, values) in curves.items()
                        ],
                    )
                self._db.execute("DELETE FROM checkpoints WHERE key = ?", (row["key"],))

    def checkpoint(self, states: Mapping[str, tuple[int, bytes]]) -> None:
        """Keep the step and the state of runs in training, in place of earlier ones, until they are finished."""
        with self._plain_words(), self._db:
            values = [(key, step, state) for key, (step, state) in states.items()]
            self._db.executemany("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)", values)

    def checkpoints(self, keys: Iterable[str]) -> dict[str, int]:
        """The step of each of the runs that has a checkpoint."""
        query = "SELECT step FROM checkpoints WHERE key = ?"
        with self._plain_words():
            found = {key: self._db.execute(query, (key,)).fetchone() for key in keys}
        return {key: row[0] for key, row in found.items() if row is not None}

    def resume(self, keys: Sequence[str]) -> list[bytes]:
        """The states of all these runs, if they are all of one step; else none."""
        query = "SELECT step, state FROM checkpoints WHERE key = ?"
        with self._plain_words():
            found = [self._db.execute(query, (key,)).fetchone() for key in keys]
        if None in found or len({step for step, _ in found}) != 1:
            return []
        return [state for _, state in found]

    def rows(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """One dict for each key, in that order, as :meth:`add` took them, without the curves."""
        with self._plain_words(), closing(self._db.cursor()) as cursor:
            rows = []
            for key in keys:
                values = cursor.execute("SELECT * FROM runs WHERE key = ?", (key,)).fetchone()
                row = dict(zip((column[0] for column in cursor.description), values, strict=True))
                del row["number"]
                rows.append(row | {name: json.loads(row[name]) for name in JSON})
            return rows

    def curve(self, key: str, metric: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Steps and values of one metric of one run; ``None`` if it was not recorded."""
        with self._plain_words():
            found = self._db.execute("SELECT steps, vals FROM curves WHERE key = ? AND metric = ?", (key, metric))
            row = found.fetchone()
        return None if row is None else (np.frombuffer(row[0], "<i4"), np.frombuffer(row[1], "<f4"))

    def metrics(self) -> list[str]:
        """The names of all recorded curves."""
        with self._plain_words():
            return [m for (m,) in self._db.execute("SELECT DISTINCT metric FROM curves ORDER BY metric")]


def open(path: str | Path) -> Runs:
    """All runs of a store. Raises ``StoreError`` for a file that is missing, foreign, corrupt or newer."""
    from .runs import Runs

    store = Store(path, create=False)
    return Runs(store, store.keys())


def _order(hyper: Mapping[str, Any]) -> list[tuple[int, float, str]]:
    """A sort key under which settings go by their numbers, in the order of the names."""
    values = [x for value in hyper.values() for x in (value if isinstance(value, list) else [value])]
    return [(0, float(x), "") if isinstance(x, (int, float)) else (1, 0.0, str(x)) for x in values]
