"""The walls around a submission: what it cannot see, reach, write or use up, and what it cannot make a test say."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from stepsize.course import sandbox
from stepsize.course.sandbox import Cell, Limits, Outcome, run

LACK = sandbox.lacking()
walled = pytest.mark.skipif(LACK is not None, reason=str(LACK))
STOPPED = "it was stopped after 3 seconds of processor time: does a loop never end?"
QUICK = Limits(seconds=3, memory=2**30)


def _cells(**sources: str) -> list[Cell]:
    """Cells by name: ``test_…`` are tests, ``given…`` the set's own, the others the submission's."""
    return [
        Cell(name, textwrap.dedent(text).strip(), given=name.startswith("given"), test=name.startswith("test"))
        for name, text in sources.items()
    ]


def _run(limits: Limits = QUICK, unsafe: bool = False, **sources: str) -> dict[str, Outcome]:
    cells = _cells(**sources)
    return dict(zip([cell.name for cell in cells], run(cells, seed=1, limits=limits, unsafe=unsafe), strict=True))


def _said(outcome: Outcome) -> str:
    return "" if outcome.error is None else outcome.error["text"]


def _printed(outcome: Outcome) -> str:
    return "".join(output.get("text", "") for output in outcome.outputs)


@pytest.fixture(scope="module")
def spied(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """One submission that looks at, writes to and calls whatever it can."""
    secret = tmp_path_factory.mktemp("course") / "gradebook.db"
    secret.write_text("marks")
    sets_folder = Path(__file__).parents[1] / "exercises"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        return _run(
            reads=f"""
                import os
                for path in [{str(secret)!r}, {str(sets_folder)!r}, {str(Path.home() / ".bashrc")!r}, "/etc/passwd",
                             "/proc/1/environ", "/sys", "/run", "/var", "/home", "/proc/{os.getpid()}"]:
                    if os.path.exists(path) and (os.path.isdir(path) or os.access(path, os.R_OK)):
                        print("saw", path)
                print("done")
            """,
            writes=f"""
                code = [{sys.prefix!r}, {str(Path(sandbox.__file__).parent)!r}]
                for folder in ["/", "/usr", "/dev", *code, "/proc", "/root"]:
                    try:
                        open(folder + "/pwned", "w")
                        print("wrote", folder)
                    except OSError:
                        pass
                print("done")
            """,
            calls=f"""
                import socket
                for address in [("127.0.0.1", {port}), ("1.1.1.1", 53)]:
                    try:
                        socket.create_connection(address, timeout=2)
                        print("reached", address)
                    except OSError:
                        pass
                print([name for _, name in socket.if_nameindex()])
            """,
            namespaces="""
                import ctypes, os
                libc = ctypes.CDLL(None, use_errno=True)
                for number in (0x10000000, 0x00020000):
                    print(libc.unshare(number), ctypes.get_errno())
                print(libc.memfd_create(b"x", 0), os.geteuid() == 0)
            """,
            pids="""
                import os
                print(sum(name.isdigit() for name in os.listdir("/proc")) < 10)
            """,
            environment="""
                import os
                print(sorted(os.environ))
            """,
        )


@walled
class TestWalls:
    def test_nothing_of_the_course_or_the_home_is_in_sight(self, spied: dict[str, Outcome]) -> None:
        assert _printed(spied["reads"]) == "done\n", _said(spied["reads"])

    def test_nothing_outside_can_be_written(self, spied: dict[str, Outcome]) -> None:
        assert _printed(spied["writes"]) == "done\n", _said(spied["writes"])

    def test_no_address_can_be_reached(self, spied: dict[str, Outcome]) -> None:
        assert _printed(spied["calls"]) == "['lo']\n", _said(spied["calls"])

    def test_no_further_namespaces_nor_uncounted_memory(self, spied: dict[str, Outcome]) -> None:
        assert _printed(spied["namespaces"]) == "-1 1\n-1 1\n-1 False\n", _said(spied["namespaces"])

    def test_other_processes_are_out_of_sight(self, spied: dict[str, Outcome]) -> None:
        assert _printed(spied["pids"]) == "True\n"

    def test_the_environment_tells_nothing_of_ours(self, spied: dict[str, Outcome]) -> None:
        ours = set(os.environ) - set(sandbox._environment("/tmp")) - {"PWD", "LC_CTYPE"}
        # Torch sets some for itself, inside as outside.
        ours = {name for name in ours if not name.startswith("TORCH")}
        assert not [name for name in ours if f"'{name}'" in _printed(spied["environment"])]
        assert "PYTHONHASHSEED" in _printed(spied["environment"])


@pytest.fixture(scope="module")
def ended() -> dict[str, Outcome]:
    """One submission three of whose cells end it, each in its own way, and tests that do not end."""
    return _run(
        good="def f():\n    return 1\ndef loop():\n    while True:\n        pass",
        exits="import os\nos._exit(0)",
        stubborn="while True:\n    try:\n        pass\n    except BaseException:\n        pass",
        bomb="import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
        after="x = 2",
        test_loops="loop()",
        test_crashes="import ctypes\nctypes.string_at(0)",
        test_good="assert f() == 1",
        test_after="assert x == 2",
    )


@walled
class TestBounds:
    def test_what_ends_the_process_costs_only_its_own_cell(self, ended: dict[str, Outcome]) -> None:
        assert _said(ended["exits"]) == "it ended Python"
        assert ended["test_good"].error is None and ended["test_after"].error is None

    def test_endless_loops_are_stopped_in_answers_and_in_tests(self, ended: dict[str, Outcome]) -> None:
        assert _said(ended["stubborn"]) == _said(ended["test_loops"]) == STOPPED

    def test_a_fork_bomb_is_stopped(self, ended: dict[str, Outcome]) -> None:
        assert _said(ended["bomb"]) in ("it started more than 32 processes", STOPPED)

    def test_a_crash_in_a_test_is_told(self, ended: dict[str, Outcome]) -> None:
        assert _said(ended["test_crashes"]) == "the answer crashed Python (SIGSEGV)"

    def test_memory_disk_and_output_are_bounded(self) -> None:
        done = _run(
            disk="""
                written = 0
                try:
                    for k in range(100):
                        open(f"{k}", "wb").write(b"x" * 2**23)
                        written += 2**23
                except OSError as error:
                    print(written <= 2**26, error.errno)
            """,
            large="""
                try:
                    open("/dev/shm/large", "wb").write(b"x" * 2**26)
                except OSError as error:
                    print(error.errno)
            """,
            output="print('x' * 100_000_000)",
            memory="""
                kept = []
                while True:
                    kept.append(bytearray(b"x") * 2**26)
            """,
            test_after="assert written",
        )
        assert _printed(done["disk"]) == "True 28\n", _said(done["disk"])
        assert _printed(done["large"]) == "27\n", _said(done["large"])
        assert 20_000 <= len(_printed(done["output"])) < 21_000
        assert _said(done["memory"]) in ("it used more than 1 GB of memory", "") and done["memory"].error
        assert done["test_after"].error is None

    def test_all_of_it_ends_with_the_grader(self) -> None:
        program = """
            from stepsize.course.sandbox import *
            cells = [Cell("given", "print('on')", given=True), Cell("sleeps", "import time; time.sleep(60)")]
            run(cells, seed=1, limits=Limits())
        """
        grader = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
        try:
            _wait(lambda: sandbox.usage(grader.pid)[2] >= 3, "the runner never started")
            below = _descendants(grader.pid)
        finally:
            grader.kill()
            grader.wait()
        _wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), "the runner outlives the grader")


@walled
class TestTests:
    def test_no_answer_can_read_a_test_not_even_a_later_one(self) -> None:
        done = _run(
            first="x = 1",
            test_first="secret_of_the_test = 'hidden-words'\nassert x == 1",
            spy="""
                import sys
                def seen():
                    words, frame, found = "-".join(["hidden", "words"]), sys._getframe(1), 0
                    while frame:
                        found += words in repr(frame.f_locals) + repr(frame.f_globals)
                        frame = frame.f_back
                    return found
                print(seen(), "secret_of_the_test" in globals())
            """,
        )
        assert _printed(done["spy"]) == "0 False\n"

    def test_what_an_answer_replaces_is_put_back_before_a_test(self) -> None:
        patches = """
            import builtins, json, os, torch
            import stepsize.rules
            torch.equal = torch.allclose = lambda *_, **__: True
            torch.Tensor.allclose = torch.Tensor.equal = lambda *_, **__: True
            builtins.abs = builtins.all = lambda *_: True
            stepsize.rules.find = lambda *_: (lambda *a, **k: (None,))
            stepsize.rules.find.__code__ = (lambda *_: None).__code__
            json.dumps = lambda *_, **__: '{"error": null, "outputs": []}'
            abs = max = isinstance = lambda *_: 0
            find = lambda *_: None
        """
        done = _run(
            given="import torch\nfrom stepsize.rules import find\ndef near(a, b):\n    return abs(a - b) < 1e-6",
            patches=patches,
            near="def near(a, b):\n    return True",
            test_equal="assert not torch.equal(torch.ones(1), torch.zeros(1))",
            test_method="assert not torch.ones(1).allclose(torch.zeros(1))",
            test_builtin="assert abs(-2) == 2 and not all([False]) and max(1, 2) == 2 and isinstance(1, int)",
            test_library="assert find('sgd').name == 'sgd'",
            test_fails="assert False, 'this must fail'",
        )
        for name in ("test_equal", "test_method", "test_builtin", "test_library"):
            assert done[name].error is None, done[name].error
        assert done["test_fails"].error is not None

    def test_a_test_that_is_ended_from_within_does_not_pass(self) -> None:
        done = _run(
            answers="""
                import os, sys
                def leaves():
                    os._exit(0)
                def exits():
                    sys.exit(0)
                class Sly(Exception):
                    def __str__(self):
                        raise SystemExit
                def sly():
                    raise Sly
            """,
            test_leaves="leaves()",
            test_exits="exits()",
            test_sly="sly()",
            test_syntax="assert (",
        )
        assert _said(done["test_leaves"]) == "the answer ended Python"
        assert done["test_exits"].error["kind"] == "SystemExit"
        assert _said(done["test_sly"]) == "its text cannot be made: SystemExit"
        assert done["test_syntax"].error["kind"] == "SyntaxError"

    def test_what_is_drawn_in_a_test_is_the_same_at_every_grading(self) -> None:
        drawn = "import random, torch\nassert 0, f'{random.random()} {torch.rand(1).item()}'"
        first, second = (_run(test_drawn=drawn)["test_drawn"] for _ in range(2))
        assert _said(first) == _said(second) and " " in _said(first)

    def test_an_error_names_the_answer_and_the_line(self) -> None:
        done = _run(wrong="def f():\n    y = 1\n    return x", test_wrong="f()")
        assert done["test_wrong"].error | {"text": ""} == {"kind": "NameError", "text": "", "line": 3, "cell": "wrong"}

    def test_without_walls_the_same_is_run_and_bounded(self) -> None:
        done = _run(unsafe=True, good="x = 1", loops="while True:\n    pass", test_good="assert x == 1")
        assert "3 seconds" in _said(done["loops"])
        assert done["test_good"].error is None


class TestLack:
    def test_a_machine_without_bubblewrap_is_told_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sandbox.shutil, "which", lambda _: None)
        assert str(sandbox.lacking()).endswith("which is not installed: apt install bubblewrap")

    def test_a_bubblewrap_that_may_not_make_walls_is_found_out(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        fake = tmp_path / "bwrap"
        fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        said = str(sandbox.lacking())
        assert "cannot make its walls here" in said and "No permissions to create new namespace" in said


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        task = Path(f"/proc/{waiting.pop()}/task")
        for thread in task.iterdir():
            children = [int(word) for word in (thread / "children").read_text().split()]
            found += children
            waiting += children
    return found


def _wait(condition, otherwise: str) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)
