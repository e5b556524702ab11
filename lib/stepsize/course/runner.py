"""Runs one submission's cells, inside the walls: it is sent a cell at a time, and never holds a test before its turn.

A test runs in a fork, which is thrown away afterwards: what it loops, ends or breaks is its own, and later answers
cannot read it. Before a test, library functions that a submission has replaced are put back, and the test's names are
its own: only what the submission defined is taken from the submission.

It imports nothing of stepsize.course, so that it can be started as a file.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import gc
import importlib
import io
import json
import os
import random
import resource
import signal
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

# What the sets use: loaded before the first line of a submission, so that it can be put back.
PRELOADED = ("numpy", "torch", "stepsize.rules", "stepsize.optim", "stepsize.laws", "stepsize.check")
MOST_TEXT = 20_000
MOST_PICTURES = 10
MOST_PICTURE = 2_000_000


class Late(BaseException):
    """The time of a cell is over. Not an Exception, so that `except Exception` does not hold it."""


class Cut(io.TextIOBase):
    """A text stream that keeps the first ``MOST_TEXT`` characters, whatever is written."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.room = MOST_TEXT

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.room > 0:
            self.kept.append(text[: self.room])
            self.room -= len(text)
            if self.room <= 0:
                self.kept.append("\n… the rest of the output was dropped\n")
        return len(text)

    def text(self) -> str:
        return "".join(self.kept)


class Originals:
    """The functions and classes of all modules loaded so far, to undo what a submission replaces."""

    def __init__(self) -> None:
        self.known: list[tuple[Any, str, Any]] = []
        self.codes: list[tuple[types.FunctionType, Any]] = []
        seen: set[int] = set()
        for module in list(sys.modules.values()):
            if not isinstance(module, types.ModuleType):
                continue
            for name, value in list(vars(module).items()):
                if not callable(value) and not isinstance(value, types.ModuleType):
                    continue
                self.known.append((module, name, value))
                self._remember_code(value)
                if isinstance(value, type) and id(value) not in seen and value.__flags__ & (1 << 9):
                    seen.add(id(value))
                    for attribute, member in list(vars(value).items()):
                        if callable(member) or isinstance(member, (property, staticmethod, classmethod)):
                            self.known.append((value, attribute, member))
                            self._remember_code(member)

    def _remember_code(self, value: Any) -> None:
        if isinstance(value, types.FunctionType):
            self.codes.append((value, (value.__code__, value.__defaults__, value.__kwdefaults__)))

    def restore(self) -> None:
        """Put back every replaced function, method and body; what was added stays."""
        for owner, name, value in self.known:
            if vars(owner).get(name) is not value:
                with contextlib.suppress(AttributeError, TypeError):
                    type.__setattr__(owner, name, value) if isinstance(owner, type) else setattr(owner, name, value)
        for function, (code, defaults, named) in self.codes:
            if function.__code__ is not code:
                function.__code__ = code
            if function.__defaults__ is not defaults:
                function.__defaults__ = defaults
            if function.__kwdefaults__ is not named:
                function.__kwdefaults__ = named


class Session:
    """The state of one submission: its names, and what has been given to it."""

    def __init__(self, originals: Originals, seconds: float, seed: int) -> None:
        from IPython.core.compilerop import CachingCompiler
        from IPython.core.displayhook import DisplayHook
        from IPython.core.displaypub import CapturingDisplayPublisher
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        class Quiet(DisplayHook):
            """Keeps the value of a cell's last line, and prints nothing."""

            def __call__(self, result: Any = None) -> None:
                if self.exec_result is not None:
                    self.exec_result.result = result

        class Named(CachingCompiler):
            """Gives a cell its task's name, so that an error can say where it is."""

            name = "cell"

            def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
                return f"<{self.name}>"

        settings = Config()
        settings.HistoryManager.enabled = False
        InteractiveShell.clear_instance()
        self.shell: Any = InteractiveShell.instance(
            config=settings,
            compiler_class=Named,
            displayhook_class=Quiet,
            display_pub_class=CapturingDisplayPublisher,
            user_ns={"__name__": "__main__"},
        )
        for method in ("showtraceback", "showsyntaxerror", "showindentationerror"):
            setattr(self.shell, method, lambda *_, **__: None)
        self.originals, self.seconds = originals, seconds
        self.given: list[str] = []
        self.answered: set[str] = set()
        self.start(seed)

    def start(self, seed: int) -> None:
        """What draws at random from here on depends on ``seed`` alone."""
        self.seed = seed
        _seed(seed)

    def cell(self, source: str, name: str, given: bool) -> dict[str, Any]:
        """Run a cell of the notebook; ``given`` if it is the set's own. What it prints, shows, and its error."""
        if given:
            self.given.append(source)
        shown: list[dict[str, Any]] = []
        self.shell.display_pub.outputs = shown
        self.shell.compile.name = name
        printed = Cut()
        error: BaseException | None = None
        with _redirected(printed):
            try:
                with _time_limit(self.seconds):
                    result = self.shell.run_cell(source)
                error = result.error_before_exec or result.error_in_exec
                value = result.result
            except Late as late:
                error, value = late, None
        if not given:
            with contextlib.suppress(SyntaxError, ValueError):
                self.answered |= _defined(ast.parse(source))
        outputs: list[dict[str, Any]] = [{"text": printed.text()}] if printed.kept else []
        outputs += [{"data": data} for data in self._pictures(shown)]
        if value is not None and error is None:
            with contextlib.suppress(Exception):
                outputs.append({"text": repr(value)[:MOST_TEXT]})
        return {"outputs": outputs, "error": _described(error, self.seconds)}

    def _pictures(self, shown: Iterable[dict[str, Any]]) -> Iterator[dict[str, str]]:
        for output in list(shown)[:MOST_PICTURES]:
            data = output.get("data", {})
            kept = {kind: data[kind] for kind in ("image/png", "text/plain") if isinstance(data.get(kind), str)}
            if kept and sum(map(len, kept.values())) < MOST_PICTURE:
                yield kept

    def test(self, source: str, name: str) -> dict[str, Any]:
        """Run a test in a fork, and say whether it held."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(read)
                reply = json.dumps({"outputs": [], "error": self._tested(source, name)}).encode()
                while reply:
                    reply = reply[os.write(write, reply) :]
            finally:
                os._exit(0)
        os.close(write)
        parts = []
        while part := os.read(read, 65536):
            parts.append(part)
        os.close(read)
        _, status = os.waitpid(pid, 0)
        try:
            return dict(json.loads(b"".join(parts)))
        except ValueError:
            return {"outputs": [], "error": _ended(status, self.seconds)}

    def _tested(self, source: str, name: str) -> dict[str, Any] | None:
        """In the fork: the error of a test, or None."""
        sys.settrace(None)
        sys.setprofile(None)
        for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        until = int(used + self.seconds) + 1
        _limit(resource.RLIMIT_CPU, until, until + 1)
        os.environ["STEPSIZE_CHECK_SEED"] = str(self.seed)
        _seed(self.seed)
        names = {k: v for k, v in self.shell.user_ns.items() if not hasattr(builtins, k) or k == "__name__"}
        names["__builtins__"] = builtins
        try:
            with _redirected(Cut()):
                for text in self.given:
                    _repeat_definitions(text, names, self.answered)
                exec(compile(source, f"<{name}>", "exec"), names)
        except BaseException as error:
            return _described(error, self.seconds)
        return None


def _repeat_definitions(text: str, names: dict[str, Any], answered: set[str]) -> None:
    """The imports and definitions of a given cell once more, except of names that an answer defines."""
    tree = ast.parse(text)
    kept: list[ast.stmt] = []
    for node in tree.body:
        single = ast.Module([node], [])
        if isinstance(node, (ast.Import, ast.ImportFrom)) or (
            isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not _defined(single) & answered
        ):
            kept.append(node)
    exec(compile(ast.Module(kept, []), "<given>", "exec"), names)


def _defined(tree: ast.Module) -> set[str]:
    found = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


@contextlib.contextmanager
def _redirected(stream: Cut) -> Iterator[None]:
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Interrupt the block after so many seconds of processor time."""

    def over(*_: Any) -> None:
        raise Late

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _described(error: BaseException | None, seconds: float) -> dict[str, Any] | None:
    """An error as its kind, its text, and the answer and line where it arose; None for none."""
    if error is None:
        return None
    if isinstance(error, Late):
        return {"kind": "Late", "text": _too_long(seconds), "line": None, "cell": None}
    kind = type(error).__name__
    try:
        text = str(error).strip()[:2000]
    except BaseException as second:
        text = f"its text cannot be made: {type(second).__name__}"
    line = cell = None
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.startswith("<") and name != "<given>":
            line, cell = trace.tb_lineno, name.strip("<>")
        trace = trace.tb_next
    if isinstance(error, SyntaxError):
        line, text = error.lineno, error.msg
    return {"kind": str(kind)[:100], "text": text, "line": line, "cell": cell}


def _ended(status: int, seconds: float) -> dict[str, Any]:
    """Why a fork ended without an answer."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number in (signal.SIGXCPU, signal.SIGKILL):
            text = _too_long(seconds)
        else:
            text = f"the answer crashed Python ({signal.Signals(number).name})"
    else:
        text = "the answer ended Python"
    return {"kind": "Ended", "text": text, "line": None, "cell": None}


def _too_long(seconds: float) -> str:
    return f"it was stopped after {seconds:g} seconds of processor time: does a loop never end?"


def _seed(seed: int) -> None:
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _limit(what: int, soft: int, hard: int | None = None) -> None:
    """Lower a limit of this process; one that is lower already stays."""
    most = resource.getrlimit(what)[1]
    hard = soft if hard is None else hard
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(what, (soft, hard))


def preload() -> Originals:
    """Import what the sets use, and remember it as it is."""
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    importlib.import_module("IPython.core.interactiveshell")
    import torch

    torch.set_num_threads(1)
    # The first gradient of a function and the first optimizer load half of torch: once here, not in every test's fork.
    torch.func.grad(torch.sum)(torch.zeros(1))
    torch.optim.SGD([torch.zeros(1)], lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        originals = Originals()
    # Otherwise every fork's garbage collection would copy the memory of all that was imported.
    gc.collect()
    gc.freeze()
    return originals


def main() -> None:
    """Serve one submission over the file descriptors named by the arguments, until they are closed."""
    requests, replies, limits = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    if limits["uid"] is not None:
        os.setgroups([])
        os.setgid(limits["uid"])
        os.setuid(limits["uid"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for what, most in [
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_FSIZE, limits["file"]),
        (resource.RLIMIT_NOFILE, 256),
    ]:
        if most:
            _limit(what, most)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    originals = preload()
    with os.fdopen(requests, encoding="utf-8") as inbox, os.fdopen(replies, "w", encoding="utf-8") as outbox:

        def say(reply: dict[str, Any]) -> None:
            outbox.write(json.dumps(reply) + "\n")
            outbox.flush()

        session: Session | None = None
        restore = originals.restore
        say({"ready": True})
        for line in inbox:
            request = json.loads(line)
            if session is None:
                session = Session(originals, request["seconds"], request["seed"])
            secret = request.pop("secret")
            if request["test"]:
                restore()
                reply = session.test(request["source"], request["name"])
            else:
                reply = session.cell(request["source"], request["name"], request["given"])
            say(reply | {"secret": secret})


if __name__ == "__main__":
    main()
