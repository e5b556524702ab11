"""Where the pieces of a sweep are trained: in this process, in one process a core, or on a cluster."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from .. import own_rule
from ..engines.pace import Pace, measure, run_steps
from ..engines.sweep import chunk_size, one_thread
from ..rules import find
from ..store import Store

if TYPE_CHECKING:
    from ..sweep import Run

Rows = list[dict[str, Any]]
# Seconds of work from which on it is measured how to do it, and how many times as many steps as that takes.
LONG, SHARE = 2.0, 20
# Seconds of work below which starting processes does not pay: each needs 3 of a core to import what it runs.
WORTH = 15.0
# Runs that a thread must have to train at once, for threads to pay.
BUSY = 12
# Seconds after which idle processes end, and a scheduler is held for absent.
IDLE, PATIENCE = 120, 10


class Executor(Protocol):
    """Trains pieces of a sweep; ``str`` says where, for the record.

    ``pieces`` is how many each worker should get at least, so that none is idle for long at the end.
    """

    workers: int
    pieces: int

    def train(
        self, chunks: Sequence[Sequence[Run]], store: Store, checkpoint: float, tick: Callable[[int], Any]
    ) -> Iterator[Rows]:
        """Train each piece, and yield its rows when it is done, in any order."""


class Here:
    """In this process, as many pieces at once as there are threads."""

    pieces = 1

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers

    def __str__(self) -> str:
        return f"in this process, {self.workers} threads" if self.workers > 1 else "in this process"

    def train(
        self, chunks: Sequence[Sequence[Run]], store: Store, checkpoint: float, tick: Callable[[int], Any]
    ) -> Iterator[Rows]:
        if self.workers == 1:
            for chunk in chunks:
                yield _train_here(chunk, store, checkpoint, tick)
            return
        stop = threading.Event()

        def ticking(run_steps: int) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            tick(run_steps)

        # The number of torch's threads must not change while any of them trains.
        with one_thread(), ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(_train_here, chunk, store, checkpoint, ticking) for chunk in chunks]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:
                stop.set()
                for future in futures:
                    future.cancel()


def _train_here(chunk: Sequence[Run], store: Store, checkpoint: float, tick: Callable[[int], Any]) -> Rows:
    from ..sweep import train

    # Another process may have done some of them meanwhile.
    ready = store.known(run.key for run in chunk)
    tick(sum(run.steps for run in chunk if run.key in ready))
    todo = [run for run in chunk if run.key not in ready]
    return train(todo, store if store.on_disk else None, checkpoint, tick) if todo else []


class Processes:
    """In several processes of one thread each, which stay for the next sweep."""

    pieces = 2

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __str__(self) -> str:
        return f"{self.workers} processes"

    def train(
        self, chunks: Sequence[Sequence[Run]], store: Store, checkpoint: float, tick: Callable[[int], Any]
    ) -> Iterator[Rows]:
        from loky import get_reusable_executor
        from loky.backend import get_context
        from loky.process_executor import TerminatedWorkerError

        global _ticks
        _ticks = _ticks or get_context().Queue()
        # A process starts with these: one that took all cores at its start would slow the others down.
        env = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        own = own_rule.files()
        pool = get_reusable_executor(self.workers, timeout=IDLE, env=env, initializer=_begin, initargs=(_ticks, own))
        path = store.path if store.on_disk else None
        futures = {pool.submit(_train_in_process, list(chunk), path, checkpoint) for chunk in chunks}
        try:
            while futures:
                try:
                    tick(_ticks.get(timeout=0.2))
                    continue
                except queue.Empty:
                    pass
                for future in [future for future in futures if future.done()]:
                    futures.remove(future)
                    yield future.result()
        except TerminatedWorkerError as error:
            raise ChildProcessError(
                "a process of the sweep was killed, perhaps for want of memory; what was done is in the store: "
                "the same sweep goes on from there, with workers=1 it needs less memory"
            ) from error
        finally:
            if futures:
                pool.shutdown(wait=False, kill_workers=True)


_ticks: Any = None


def _begin(ticks: Any, rule_files: Sequence[tuple[str, str]]) -> None:
    """At the start of a process: it leaves Ctrl-C to its parent, ends with it, and knows the reader's own rules."""
    global _ticks
    _ticks = ticks
    own_rule.load_all(rule_files)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _train_in_process(chunk: list[Run], path: str | None, checkpoint: float) -> Rows:
    from ..sweep import train

    store = Store(path, check=False) if path is not None else None
    ready: set[str] = set()
    try:
        if store is not None:
            ready = store.known(run.key for run in chunk)
            _ticks.put(sum(run.steps for run in chunk if run.key in ready))
        todo = [run for run in chunk if run.key not in ready]
        return train(todo, store, checkpoint, _ticks.put) if todo else []
    finally:
        if store is not None:
            store.close()


def paces(todo: Sequence[Run]) -> dict[tuple[str, str], Pace]:
    """How fast each task goes with each engine, by their names; measured where there is enough to do."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in todo:
        if run.device == "cpu":
            groups.setdefault(_kind(run), []).append(run)
    measured = {}
    for (name, engine), runs in groups.items():
        rules = {find(run.name) for run in runs} if engine != "loop" else set()
        most = min([len(runs), *(chunk_size(runs[0].task, rule) for rule in rules)]) if rules else 1
        enough = sum(run.steps for run in runs) > SHARE * run_steps(most)
        if enough and sum(run.cost for run in runs) > LONG:
            measured[name, engine] = measure(runs[0].task, engine == "native", most)
    return measured


def here_or_in_processes(
    workers: int | str, todo: Sequence[Run], paces: Mapping[tuple[str, str], Pace]
) -> Here | Processes:
    """Processes where as many were asked for, or, with ``"auto"``, where the work is long enough to pay for them.

    Where it is not, ``"auto"`` takes threads if enough runs are trained at once for each to be busy in C, and for
    native runs always: they leave Python alone for nearly all of their time.
    """
    on_gpu = any(run.device == "cuda" for run in todo)
    # What a notebook or script defines does not exist in another process.
    if not todo or on_gpu or workers == 1 or not all(map(_is_ours, todo)):
        return Here()
    if workers != "auto":
        return Processes(int(workers))
    others = [run for run in todo if run.engine != "native"]
    costs = [paces[_kind(run)].seconds * run.steps if _kind(run) in paces else run.cost for run in others]
    if _cores() > 1 and sum(costs) > WORTH:
        return Processes(_cores())
    together = [run for run in todo if run.engine == "native" or (run.engine != "loop" and run.task.batched)]
    return Here(min(_cores(), max(1, len(together) // BUSY)))


def _kind(run: Run) -> tuple[str, str]:
    return run.task_name, run.engine


def _is_ours(run: Run) -> bool:
    modules = [type(run.task).__module__]
    if run.engine != "loop":
        modules.append(find(run.name).function.__module__)
    return all(module.startswith("stepsize.") for module in modules)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Cluster:
    """On the workers of a ``dask.distributed`` cluster; a piece whose worker dies goes to another."""

    pieces = 2

    def __init__(self, client: Any, *, ours: bool) -> None:
        self.client, self.ours = client, ours
        self.workers = max(1, len(client.scheduler_info()["workers"]))

    def __str__(self) -> str:
        return f"a cluster of {self.workers} worker{'s' * (self.workers > 1)}"

    def train(
        self, chunks: Sequence[Sequence[Run]], store: Store, checkpoint: float, tick: Callable[[int], Any]
    ) -> Iterator[Rows]:
        from distributed import as_completed as each_completed

        # Not pure: dask must not take two sweeps' pieces for one.
        futures = [self.client.submit(_train_on_cluster, list(chunk), pure=False) for chunk in chunks]
        steps = {f.key: sum(run.steps for run in chunk) for f, chunk in zip(futures, chunks, strict=True)}
        try:
            for future in each_completed(futures, loop=self.client.loop):
                rows = future.result()
                yield rows
                # Its rows are in the store now: were its worker to die, dask would train it again.
                future.release()
                tick(steps[future.key])
        finally:
            self.client.cancel(futures)

    def close(self) -> None:
        """End the connection, if it was made here."""
        if self.ours:
            self.client.close()


# A worker may have several threads, and torch's number of threads is one for all.
_one_at_a_time = threading.Lock()


def _train_on_cluster(chunk: list[Run]) -> Rows:
    from ..sweep import train

    if any(replace(run).key != run.key for run in chunk):
        raise RuntimeError("a worker of the cluster has another version of stepsize or of torch: give all the same")
    with _one_at_a_time:
        return train(chunk, None, 0.0, lambda run_steps: None)


def on_cluster(cluster: Any) -> Cluster:
    """The executor of an address, a ``Client`` or a cluster object; ``ValueError`` if nothing answers there."""
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("cluster needs dask.distributed: pip install 'stepsize[cluster]'") from None
    if isinstance(cluster, Client):
        return Cluster(cluster, ours=False)
    try:
        return Cluster(Client(cluster, timeout=PATIENCE, set_as_default=False), ours=True)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = "the address of a dask scheduler such as tcp://host:8786, or a client"
        raise ValueError(f"cluster must be {what}, got {cluster!r} ({reason})") from None
