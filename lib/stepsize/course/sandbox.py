"""Walls around a submission: no network, nothing of the course in sight, nothing of the machine to write to.

bubblewrap makes the walls, a list of forbidden system calls closes what namespaces leave open, resource limits bound
each process, and a watch from outside bounds all of them together in memory, processor time and time.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import CourseError

RUNNER = Path(__file__).with_name("runner.py")
MB = 2**20


@dataclass(frozen=True)
class Limits:
    """What a submission may use: sizes in bytes; ``seconds`` is processor time for each cell."""

    seconds: float = 20.0
    memory: int = 3 * 2**30
    address_space: int = 16 * 2**30
    processes: int = 32
    file: int = 32 * MB
    disk: int = 64 * MB
    reply: int = 32 * MB

    @property
    def wall(self) -> float:
        """How long a cell may take when it does not compute, but waits; generous, as the machine may be busy."""
        return 5 * self.seconds + 15


@dataclass(frozen=True)
class Cell:
    """One cell to run: of the set (``given``), of the submission, or a test."""

    name: str
    source: str
    given: bool = False
    test: bool = False


@dataclass
class Outcome:
    """What a cell did: its outputs, and its error or None. ``ran`` is false if it was never reached."""

    outputs: list[dict[str, Any]] = field(default_factory=list)
    error: dict[str, Any] | None = None
    ran: bool = True


class Died(Exception):
    """The runner is gone, or was ended; the sentence says why."""


def lacking() -> str | None:
    """Why no walls can be made here, in one sentence; None if they can."""
    if sys.platform != "linux":
        return "submissions are walled off by bubblewrap, which only Linux has"
    if not shutil.which("bwrap"):
        return "submissions are walled off by bubblewrap, which is not installed: apt install bubblewrap"
    try:
        with _walls(slot=0, limits=Limits()) as walls:
            command = [*walls.command, sys.executable, "-I", "-c", "import socket; print('walled')"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, pass_fds=walls.keep, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap is installed, but could not be run: {error}"
    if done.stdout.strip() != "walled":
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return (
            "bubblewrap is installed, but cannot make its walls here, as in many containers: the kernel must allow "
            f"user namespaces (it said: {said})"
        )
    return None


def run(
    cells: Sequence[Cell],
    *,
    seed: int,
    limits: Limits,
    slot: int = 0,
    unsafe: bool = False,
    stop: threading.Event | None = None,
) -> list[Outcome]:
    """Run the cells in order, each as if those that ended the runner had been empty; one outcome for each.

    ``slot`` is a number that no other submission has at the same time. ``unsafe`` runs without walls, with
    resource limits only. ``stop`` ends it early.
    """
    stop = stop or threading.Event()
    ended: dict[int, str] = {}
    for _ in range(4):
        outcomes, died = _attempt(cells, ended, seed, limits, slot, unsafe, stop)
        if died is None:
            return outcomes
        index, sentence = died
        if index is None or index in ended or stop.is_set():
            break
        ended[index] = sentence
    for outcome in outcomes:
        if not outcome.ran:
            outcome.error = {"kind": "Ended", "text": f"not run: {sentence}", "line": None, "cell": None}
    return outcomes


def _attempt(
    cells: Sequence[Cell],
    ended: dict[int, str],
    seed: int,
    limits: Limits,
    slot: int,
    unsafe: bool,
    stop: threading.Event,
) -> tuple[list[Outcome], tuple[int | None, str] | None]:
    outcomes = [Outcome(ran=False) for _ in cells]
    index: int | None = None
    with _process(slot, limits, unsafe, stop) as runner:
        try:
            runner.listen(seconds=120, wall=180)
            for index, cell in enumerate(cells):
                if index in ended:
                    error = {"kind": "Ended", "text": ended[index], "line": None, "cell": cell.name}
                    outcomes[index] = Outcome(error=error)
                    continue
                secret = secrets.token_hex(16)
                runner.send(
                    {
                        "source": cell.source,
                        "name": cell.name,
                        "given": cell.given,
                        "test": cell.test,
                        "seconds": limits.seconds,
                        "seed": seed,
                        "secret": secret,
                    }
                )
                reply = runner.listen(seconds=limits.seconds + 5, wall=limits.wall)
                if reply.get("secret") != secret:
                    raise Died("it interfered with the grading")
                outcome = _checked(reply)
                if not cell.test and outcome.error and outcome.error["kind"] == "Late":
                    # What it defined before it was stopped depends on luck: without it, the mark does not.
                    raise Died(outcome.error["text"])
                outcomes[index] = outcome
        except Died as died:
            return outcomes, (index, str(died))
    return outcomes, None


def _checked(reply: dict[str, Any]) -> Outcome:
    """A reply as an outcome. It comes from the submission's process: nothing in it is trusted to have its type."""
    error = reply.get("error")
    if error is not None:
        if not isinstance(error, dict):
            raise Died("it interfered with the grading")
        line = error.get("line")
        error = {
            "kind": str(error.get("kind"))[:100],
            "text": str(error.get("text"))[:2000],
            "line": line if isinstance(line, int) else None,
            "cell": str(error["cell"])[:100] if error.get("cell") else None,
        }
    outputs = []
    for output in reply.get("outputs") or []:
        if isinstance(output, dict) and isinstance(output.get("text"), str):
            outputs.append({"text": output["text"]})
        elif isinstance(output, dict) and isinstance(output.get("data"), dict):
            outputs.append({"data": {str(kind): str(data) for kind, data in output["data"].items()}})
    return Outcome(outputs, error)


@dataclass
class _Runner:
    """The runner's process, seen from outside."""

    process: subprocess.Popen[bytes]
    inbox: int
    outbox: int
    limits: Limits
    stop: threading.Event
    buffer: bytes = b""
    used: float = 0.0

    def send(self, request: dict[str, Any]) -> None:
        message = json.dumps(request).encode() + b"\n"
        end = time.monotonic() + 60
        try:
            while message:
                if not select.select([], [self.outbox], [], 0.5)[1]:
                    if time.monotonic() > end:
                        raise Died("it stopped listening")
                    continue
                message = message[os.write(self.outbox, message[:4096]) :]
        except OSError as error:
            raise Died(self._ended()) from error

    def listen(self, *, seconds: float, wall: float) -> dict[str, Any]:
        """The next reply, while the processes stay within ``seconds`` of processor time, ``wall`` and their memory."""
        end, before = time.monotonic() + wall, self.used
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.inbox], [], [], 0.25)
            if ready:
                part = os.read(self.inbox, 65536)
                if not part:
                    raise Died(self._ended())
                self.buffer += part
                if len(self.buffer) > self.limits.reply:
                    raise Died("it printed more than can be kept")
                continue
            if self.stop.is_set():
                raise Died("grading was stopped")
            memory, self.used, count = usage(self.process.pid)
            if count > self.limits.processes:
                raise Died(f"it started more than {self.limits.processes} processes")
            if memory > self.limits.memory and usage(self.process.pid, exact=True)[0] > self.limits.memory:
                raise Died(f"it used more than {self.limits.memory / 2**30:g} GB of memory")
            if self.used - before > seconds:
                raise Died(
                    f"it was stopped after {self.limits.seconds:g} seconds of processor time: does a loop never end?"
                )
            if time.monotonic() > end:
                raise Died(f"it was stopped after {wall:g} seconds: does it wait for something?")
        line, _, self.buffer = self.buffer.partition(b"\n")
        try:
            return dict(json.loads(line))
        except (ValueError, TypeError) as error:
            raise Died("it interfered with the grading") from error

    def _ended(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        code = self.process.returncode
        # bubblewrap reports a child ended by a signal as 128 + its number.
        if code is not None and (code > 128 or code < 0):
            return "it crashed Python"
        return "it ended Python"


@contextlib.contextmanager
def _process(slot: int, limits: Limits, unsafe: bool, stop: threading.Event) -> Iterator[_Runner]:
    """A runner that is ready to be sent cells, and is gone afterwards with all that it started."""
    with _walls(slot, limits) if not unsafe else _no_walls() as walls:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        told = {
            "memory": limits.address_space,
            "processes": None if unsafe else 2 * limits.processes,
            "file": limits.file,
            "uid": walls.uid,
        }
        python = [sys.executable, "-B", str(RUNNER), str(theirs_in), str(theirs_out), json.dumps(told)]
        process = subprocess.Popen(
            [*walls.command, *python],
            pass_fds=(theirs_in, theirs_out, *walls.keep),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=walls.errors,
            env=walls.environment,
            cwd=walls.folder,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield _Runner(process, ours_in, ours_out, limits, stop)
        finally:
            # Inside walls this process is the parent of all others, and none outlives it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
            os.close(ours_in)
            os.close(ours_out)


@dataclass(frozen=True)
class _Walls:
    command: list[str]
    environment: dict[str, str]
    keep: tuple[int, ...] = ()
    uid: int | None = None
    folder: str | None = None
    errors: int = subprocess.DEVNULL


@contextlib.contextmanager
def _no_walls() -> Iterator[_Walls]:
    with tempfile.TemporaryDirectory() as folder:
        yield _Walls([], _environment(folder), folder=folder)


@contextlib.contextmanager
def _walls(slot: int, limits: Limits) -> Iterator[_Walls]:
    """The command that runs another one inside walls, valid within the block."""
    with tempfile.TemporaryFile() as rules:
        rules.write(forbidden_calls())
        rules.seek(0)
        command = ["bwrap", "--die-with-parent", "--new-session", "--clearenv"]
        uid = None
        if os.geteuid() == 0:
            # The kernel bounds the number of processes of every user but root: inside, be somebody.
            uid = 61184 + (os.getpid() * 16 + slot) % 4096
            command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
            command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            command += ["--unshare-all"]
        for path in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives"):
            if os.path.islink(path):
                command += ["--symlink", os.readlink(path), path]
            elif os.path.exists(path):
                command += ["--ro-bind", path, path]
        command += ["--proc", "/proc", "--dev", "/dev"]
        command += ["--perms", "1777", "--size", str(limits.disk), "--tmpfs", "/tmp"]
        command += ["--perms", "1777", "--size", str(limits.disk), "--tmpfs", "/dev/shm"]
        for path in _code():
            for parent in reversed(Path(path).parents[:-1]):
                command += ["--perms", "0755", "--dir", str(parent)]
            command += ["--ro-bind", path, path]
        # The root of the walls is itself a file system in memory.
        command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
        for name, value in _environment("/tmp").items():
            command += ["--setenv", name, value]
        command += ["--seccomp", str(rules.fileno()), "--"]
        yield _Walls(command, {"PATH": os.environ.get("PATH", os.defpath)}, (rules.fileno(),), uid)


def _code() -> list[str]:
    """The folders that Python needs: its own, the environment's packages, and the library; outermost first."""
    library = Path(__file__).parents[1]
    folders = [sys.base_prefix, sys.base_exec_prefix, sys.prefix, os.path.dirname(os.path.realpath(sys.executable))]
    paths = {os.path.realpath(folder) for folder in folders} | {sys.prefix, str(library)}
    paths = {path for path in paths if path != "/" and not path.startswith("/usr/")} - {"/usr"}
    return sorted(paths)


def _environment(home: str) -> dict[str, str]:
    return {
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), "/usr/bin", "/bin"]),
        "HOME": home,
        "TMPDIR": home,
        "MPLCONFIGDIR": home,
        "IPYTHONDIR": home,
        "LANG": "C.UTF-8",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PIP_NO_INDEX": "1",
    }


def usage(pid: int, exact: bool = False) -> tuple[int, float, int]:
    """Of a process and all its descendants: memory of their own in bytes, processor seconds so far, and how many.

    What a parent and its forks share is counted for each of them, unless ``exact``, which takes longer.
    """
    memory, ticks, count = 0, 0, 0
    waiting, seen = [pid], set()
    while waiting and count < 10_000:
        pid = waiting.pop()
        if pid in seen:
            continue
        seen.add(pid)
        folder = Path(f"/proc/{pid}")
        try:
            sizes = _sizes(folder / "status")
            # After the name, which may hold anything, come fields split by blanks; times are 12 to 15 of those.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            for task in os.listdir(folder / "task"):
                waiting += map(int, (folder / "task" / task / "children").read_text().split())
        except (OSError, ValueError):
            continue
        own = sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
        if exact:
            with contextlib.suppress(OSError, ValueError):
                shares = _sizes(folder / "smaps_rollup")
                own = shares["Pss_Anon"] + shares["Pss_Shmem"]
        memory += own
        ticks += sum(map(int, fields[11:15]))
        count += 1
    return memory, ticks / os.sysconf("SC_CLK_TCK"), count


def _sizes(path: Path) -> dict[str, int]:
    """The lines of a file of /proc that give a size, in bytes."""
    words = [line.split() for line in path.read_text().splitlines()]
    return {line[0].rstrip(":"): int(line[1]) * 1024 for line in words if len(line) == 3 and line[2] == "kB"}


# --- system calls ---------------------------------------------------------------------------------------------------

# Memory that no limit counts, namespaces within namespaces, other processes' memory, and doors to the kernel that no
# optimizer needs. Numbers of x86_64 and of aarch64.
FORBIDDEN = {
    "memfd_create": (319, 279),
    "shmget": (29, 194),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "kexec_load": (246, 104),
    "init_module": (175, 105),
    "finit_module": (313, 273),
}
MACHINES = {"x86_64": (0, 0xC000003E, 56), "aarch64": (1, 0xC00000B7, 220)}
CLONE3, NEW_USER = 435, 0x10000000
ALLOW, REFUSE, ABSENT, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000


def forbidden_calls() -> bytes:
    """The list as a program for the kernel's filter (seccomp): the calls in ``FORBIDDEN`` fail with EPERM."""
    if platform.machine() not in MACHINES:
        raise CourseError(f"no walls are known for processors of kind {platform.machine()}")
    column, machine, clone = MACHINES[platform.machine()]

    def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    load, equal, at_least, bits, end = 0x20, 0x15, 0x35, 0x45, 0x06
    program = [step(load, 4), step(equal, machine, 1, 0), step(end, KILL), step(load, 0)]
    # A second set of numbers for the same calls, on x86_64.
    program += [step(at_least, 0x40000000, 0, 1), step(end, REFUSE)]
    for numbers in FORBIDDEN.values():
        program += [step(equal, numbers[column], 0, 1), step(end, REFUSE)]
    # The flags of clone3 are behind a pointer: say that there is no such call, and programs fall back to clone.
    program += [step(equal, CLONE3, 0, 1), step(end, ABSENT)]
    program += [step(equal, clone, 0, 3), step(load, 16), step(bits, NEW_USER, 0, 1), step(end, REFUSE)]
    return b"".join([*program, step(end, ALLOW)])


class Slots:
    """Small numbers, each lent to one submission at a time."""

    def __init__(self, count: int) -> None:
        self.free = list(range(count))
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def one(self) -> Iterator[int]:
        with self.lock:
            slot = self.free.pop()
        try:
            yield slot
        finally:
            with self.lock:
                self.free.append(slot)
