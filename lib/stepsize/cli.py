"""The ``stepsize`` command: what there is, sweeps, and whether this machine is fit."""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import platform
import re
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .course import CourseError
from .course.commands import ACTIONS
from .course.commands import add_parser as add_course

if TYPE_CHECKING:
    from .report.run import Report
    from .store import Runs

EXAMPLES = """
examples:
  stepsize list optimizers
  stepsize sweep digits-mlp -o sgd --lr 1e-3:1:7 --seeds 5 --steps 300 --store runs.db
  stepsize sweep digits-mlp -o sgd -o adam -o novograd --lr auto --budget 10 --store runs.db
  stepsize export runs.db --parquet runs.parquet
  stepsize course grade 05 --course spring
  stepsize doctor
"""

SWEEP_EXAMPLES = """
examples:
  stepsize sweep digits-mlp -o sgd --lr 1e-3:1:7 --seeds 5 --steps 300 --store runs.db
      seven rates from 0.001 to 1, five seeds each; the same command again does no run twice,
      and after a crash or Ctrl-C it goes on from where it was
  stepsize sweep digits-mlp -o sgd -o adam -o novograd --lr auto --budget 12
      finds the rate of each: twelve rates for every optimizer, ever closer around the best
  stepsize sweep digits-mlp -o sgd -o sgdm -o nag:torch --lr 1e-2:1:5
      three optimizers, one of them as torch writes it; nothing is kept
  stepsize sweep digits-mlp -o 'sgdm:momentum=[0.8,0.9,0.99]' --lr 0.03,0.1,0.3
      nine settings: a list is a grid
  stepsize sweep digits-mlp -o 'adam:eps=loguniform(1e-10,1e-3)' --lr 1e-4:1e-1 --budget 20
      twenty settings drawn at random, the same at every call
  stepsize sweep digits-mlp -o adam -o novograd --lr auto --schedule 'poly(power=2)' --warmup 30
      the rate rises for 30 steps, then falls; an optimizer may have its own: -o adam:schedule=cosine
  stepsize sweep digits-mlp -o adam --lr auto --store runs.db --cluster tcp://host:8786
      trained by the workers of a dask cluster, kept here
"""

EXPORT_EXAMPLES = """
examples:
  stepsize export runs.db --parquet runs.parquet
      two files: a row per run in runs.parquet, all curves in runs-curves.parquet
  stepsize export runs.db --tensorboard logs        then: tensorboard --logdir logs
  stepsize export runs.db --mlflow sqlite:///mlflow.db
      what is there already is not written again
"""

BENCH_EXAMPLES = """
examples:
  stepsize bench --quick        half a minute: the smaller models and shorter sweeps
  stepsize bench -o speed.json  every line, about five minutes, and a record of it
  make bench                    the same in an environment that holds the rivals too
"""

CLAIMS_EXAMPLES = """
examples:
  stepsize list claims
  stepsize claims novograd-half-memory
      measures that claim with its recorded budget, prints the verdict, and rewrites its record
  stepsize claims --store claims.db
      all whose record is missing or stale; the runs are kept in claims.db, so that a second call,
      also after a crash or Ctrl-C, trains none of them again
  stepsize claims sgd-lr-dilemma --quick
      the budget of the page: seconds, and no record is written
"""

REPORT_EXAMPLES = """
examples:
  stepsize report compare -p task=digits-mlp -p optimizers=sgd,adam,novograd -o out.html
      one page that holds all it shows; out.pdf is printed by Chromium, out.ipynb is the notebook
  stepsize report compare --help
      the question it answers, its parameters, their defaults, and in brackets what is allowed
  stepsize report your-optimizer -p rule=my_rule.py -o mine.html
      tries a rule of your own against others; the file is run as it is, with all your rights
  stepsize report robustness --grid 'optimizers=[sgdm,adam],[adam,novograd]' seeds=3,5 -o out
      four reports, side by side, into the folder out; what its manifest.json has as done is not done again

Finished runs are kept beside the output (out.db, or -p store=FILE): after a crash, Ctrl-C or --timeout the same
command trains only what is missing.
"""

LIST_EXAMPLES = """
examples:
  stepsize list optimizers
  stepsize list tasks
  stepsize list reports
"""

DOCTOR_EXAMPLES = """
examples:
  stepsize doctor         exit code 1 if something is missing that every chapter needs
"""


COMMANDS = ("list", "sweep", "claims", "report", "course", "export", "bench", "doctor")


class Refusal(Exception):
    """A mistake in the input, in one sentence."""


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is one sentence on stderr."""

    def __init__(self, **options: Any) -> None:
        options["formatter_class"] = argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        command = re.search(r"invalid choice: '([^']*)'", message)
        if command:
            there = ACTIONS if self.prog.endswith(" course") else COMMANDS
            near = difflib.get_close_matches(command[1], there, n=1)
            end = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(there)}"
            raise Refusal(f"there is no command {command[1]!r}{end}")
        raise Refusal(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 0 when all was done, 1 when ``doctor`` finds a lack, 2 for wrong input, 130 for Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        given = _parser().parse_args(_join_negative(arguments))
        code: int = given.command(given)
        sys.stdout.flush()
        return code
    except (Refusal, CourseError) as refusal:
        print(f"stepsize: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstepsize: stopped; with --store, the same command goes on from where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output, such as head, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> Parser:
    parser = Parser(prog="stepsize", description="Run the road from SGD to NovoGrad.", epilog=EXAMPLES)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)

    show = commands.add_parser("list", help="what there is", description="Print what there is.", epilog=LIST_EXAMPLES)
    show.add_argument("what", metavar="{" + ",".join(LISTS) + "}", help="which list")
    show.set_defaults(command=_list)

    run = commands.add_parser(
        "sweep",
        help="train one task with many rates and seeds, each run once",
        description="Train TASK with every optimizer, rate and seed, and print how they did.",
        epilog=SWEEP_EXAMPLES,
    )
    run.add_argument("task", metavar="TASK", help="such as digits-mlp; `stepsize list tasks` names them")
    run.add_argument(
        "-o",
        "--optimizer",
        metavar="NAME[:VARIANT][:K=V,…]",
        action="append",
        required=True,
        help="such as sgdm, nag:torch or sgdm:momentum=0.9; may be given again; a list [0.8,0.9] is a grid",
    )
    tuning = run.add_argument_group("what to try")
    tuning.add_argument(
        "--lr",
        metavar="LO:HI:N",
        help="N rates from LO to HI, evenly spaced in log10; LO:HI to draw from; a list 0.1,0.3; or auto to search",
    )
    tuning.add_argument("--budget", metavar="N", help="settings each optimizer may try (with --lr auto: 8)")
    tuning.add_argument("--seeds", metavar="N", default="5", help="seeds 0 to N - 1 (default 5)")
    tuning.add_argument("--steps", metavar="N", help="steps of each run (default: the task's own)")
    tuning.add_argument("--schedule", metavar="NAME", help="how the rate changes: cosine, poly(power=2), one_cycle, …")
    tuning.add_argument("--warmup", metavar="N", default="0", help="steps over which the rate rises first (default 0)")
    tuning.add_argument("--early-stop", action="store_true", help="end a run as soon as it is hopeless")
    shown = run.add_argument_group("what to show")
    shown.add_argument("--metric", metavar="NAME", help="what to report (default: the task's own)")
    shown.add_argument("--interval", metavar="METHOD", default="t", help="t or bootstrap, over seeds (default t)")
    where = run.add_argument_group("where to train, and what to keep")
    where.add_argument("--store", metavar="FILE", help="keep the runs in this file, and do none twice")
    where.add_argument("--checkpoint", metavar="SECONDS", default="10", help="save running runs so often (default 10)")
    where.add_argument("--workers", metavar="N", default="auto", help="processes (default: one a core if it pays)")
    where.add_argument("--cluster", metavar="ADDRESS", help="a dask scheduler, such as tcp://host:8786")
    where.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    where.add_argument("--engine", default="auto", help="auto, compiled, batched or loop (default auto)")
    where.add_argument("--tensorboard", metavar="DIR", help="write all runs for TensorBoard, too")
    run.set_defaults(command=_sweep)

    claims = commands.add_parser(
        "claims",
        help="measure the statements of the ledger, and record the verdicts",
        description="Measure each claim ID, or all whose record is missing or stale, and write its record.",
        epilog=CLAIMS_EXAMPLES,
    )
    claims.add_argument("ids", metavar="ID", nargs="*", help="such as adam-fast; `stepsize list claims` names them")
    claims.add_argument("--store", metavar="FILE", default="claims.db", help="keep the runs here (default claims.db)")
    claims.add_argument("--results", metavar="DIR", help="where the records go (default book/results/claims)")
    claims.add_argument("--workers", metavar="N", default="auto", help="processes (default: one a core if it pays)")
    claims.add_argument("--quick", action="store_true", help="with the page's budget, seconds each; no record")
    claims.set_defaults(command=_claims)

    report = commands.add_parser(
        "report",
        help="answer a question with a page: figures, table, method, versions",
        description="Run the report NAME and write it as HTML, PDF or notebook.",
        epilog=REPORT_EXAMPLES,
        add_help=False,
    )
    report.add_argument("name", metavar="NAME", nargs="?", help="such as compare; `stepsize list reports` names them")
    report.add_argument("-h", "--help", action="store_true", help="show this, or with NAME that report's parameters")
    report.add_argument("-p", metavar="K=V", action="append", default=[], help="a parameter; may be given again")
    report.add_argument("-o", "--output", metavar="FILE", help="ends in .html, .pdf or .ipynb; with --grid a folder")
    report.add_argument("--store", metavar="FILE", help="keep the runs here (default: beside the output)")
    report.add_argument("--timeout", metavar="SECONDS", help="how long a report may take (default: no limit)")
    many = report.add_argument_group("many reports")
    many.add_argument("--grid", metavar="K=V,…", nargs="+", help="every combination; a list is a value in brackets")
    many.add_argument("--format", default="html", help="of a grid's files: html, pdf or ipynb (default html)")
    many.add_argument("--jobs", metavar="N", help="how many at once (default: one a core)")
    report.set_defaults(command=_report, show_help=report.print_help)

    add_course(commands)

    export = commands.add_parser(
        "export",
        help="a store's runs as Parquet, for TensorBoard or for MLflow",
        description="Write the runs of STORE for other tools.",
        epilog=EXPORT_EXAMPLES,
    )
    export.add_argument("store", metavar="STORE", help="the file that `stepsize sweep --store` wrote")
    export.add_argument("--parquet", metavar="FILE", help="tables for pandas, R, DuckDB, …")
    export.add_argument("--tensorboard", metavar="DIR", help="one folder for each run")
    export.add_argument("--mlflow", metavar="URI", help="a tracking store, such as sqlite:///mlflow.db")
    export.set_defaults(command=_export)

    bench = commands.add_parser(
        "bench",
        help="how fast we are, as ratios to named rivals",
        description="Time steps and sweeps beside their rivals, in turn, and print the ratios.",
        epilog=BENCH_EXAMPLES,
    )
    bench.add_argument("--quick", action="store_true", help="half a minute instead of five")
    bench.add_argument("-o", "--output", metavar="FILE", help="write a record as JSON")
    bench.set_defaults(command=_bench)

    doctor = commands.add_parser(
        "doctor",
        help="whether this machine has what the book needs",
        description="Check this machine, and say what to install.",
        epilog=DOCTOR_EXAMPLES,
    )
    doctor.set_defaults(command=_doctor)
    return parser


def _join_negative(arguments: Sequence[str]) -> list[str]:
    """``--lr -1:1:3`` as ``--lr=-1:1:3``: argparse takes a word that begins with a dash for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined and re.fullmatch(r"--[a-z]+", joined[-1]) and re.match(r"-[\d.]", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


@contextmanager
def _input() -> Iterator[None]:
    """Inside, an error is a mistake in the input: its sentence is all there is to say."""
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise Refusal(str(error.args[0])) from error


# --- list -----------------------------------------------------------------------------------------------------------


def _list(given: argparse.Namespace) -> int:
    from .rules.base import suggestion

    if given.what not in LISTS:
        raise Refusal(f"there is no list of {given.what!r}{suggestion(given.what, LISTS)}")
    LISTS[given.what]()
    return 0


def _list_optimizers() -> None:
    from .rules import RULES
    from .sweep import WRAPPERS

    rows = []
    for name, method in (RULES | WRAPPERS).items():
        variants = [d.name for d in method.deviations.values() if d.kind == "library"]
        author = method.paper.partition(",")[0]
        rows.append([name, author, str(method.year), method.memory, ", ".join(variants) or "–"])
    _print_table(["name", "paper", "year", "memory", "variants"], rows, left=(0, 1, 4))
    print("memory: numbers of state for a tensor of n parameters. A variant is used as NAME:VARIANT.")


def _list_tasks() -> None:
    from .tasks import TASKS

    for task in TASKS.values():
        print(f"{task.name}\n    {task.description}")
        if task.name.endswith("@full"):
            print(f"    {task.metric}; {task.steps:,} steps, for a GPU; never trained to its end by us")
            continue
        best = "at least" if task.metric in task.larger else "at most"
        print(f"    {task.steps} steps take about {task.seconds:g} s on one core; AdamW as it comes reaches", end=" ")
        print(f"{task.metric} {best} {task.target:g}")


def _list_reports() -> None:
    from .report import run

    with _input():
        for report in run.reports().values():
            _print_report(report)


def _list_claims() -> None:
    from .claims import CLAIMS

    for claim in CLAIMS.values():
        print(f"{claim.id}\n    {claim.says} ({claim.source}; chapter {claim.chapter:02}; {_told(claim.id)})")


def _told(claim_id: str) -> str:
    """What the record of a claim says, if there is one."""
    from . import claims

    try:
        found = claims.recorded(claim_id)
    except (FileNotFoundError, ValueError):
        return "not recorded"
    return f"{found.verdict}, recorded {found.made['date']}" + (", stale" if found.stale else "")


LISTS: dict[str, Callable[[], None]] = {
    "optimizers": _list_optimizers,
    "tasks": _list_tasks,
    "reports": _list_reports,
    "claims": _list_claims,
}


# --- sweep ----------------------------------------------------------------------------------------------------------


def _sweep(given: argparse.Namespace) -> int:
    from . import sweep as sweeping
    from .rules.base import suggestion
    from .stats import METHODS
    from .store import StoreError

    with _input():
        rates = _rates(given.lr)
        plan: dict[str, Any] = {
            "task": given.task,
            "optimizers": _optimizers(given.optimizer, rates),
            "seeds": _whole("seeds", given.seeds),
            "steps": None if given.steps is None else _whole("steps", given.steps),
            "device": given.device,
            "engine": given.engine,
            "budget": None if given.budget is None else _whole("budget", given.budget),
            "schedule": given.schedule,
            "warmup_steps": _whole("warmup", given.warmup, least=0),
            "early_stop": given.early_stop,
        }
        task = sweeping.ready_task(given.task)
        metric = given.metric or task.metric
        if metric not in task.metrics:
            raise Refusal(f"{task.name} has no metric {metric!r}{suggestion(metric, task.metrics)}")
        if given.interval not in METHODS:
            raise Refusal(f"interval must be {' or '.join(METHODS)}, got {given.interval}")
        workers = given.workers if given.workers == "auto" else _whole("workers", given.workers)
        where = {"workers": workers, "cluster": given.cluster, "checkpoint": _seconds("checkpoint", given.checkpoint)}
        sweeping.check(**plan)
    try:
        runs = sweeping.sweep(**plan, **where, store=given.store, progress="always")
    except (StoreError, ChildProcessError) as error:
        raise Refusal(str(error)) from error
    except ValueError as error:
        if given.cluster is not None and str(error).startswith("cluster"):
            raise Refusal(str(error)) from error
        raise
    if given.tensorboard:
        with _input():
            runs.to_tensorboard(given.tensorboard)
    _print_runs(runs, metric, given.interval)
    return 0


def _claims(given: argparse.Namespace) -> int:
    from . import claims
    from .store import StoreError

    where = Path(given.results) if given.results else None
    workers = given.workers if given.workers == "auto" else _whole("workers", given.workers)
    with _input():
        if where is None and not given.quick:
            where = claims.folder()
        asked = [claims.find(claim_id) for claim_id in given.ids] or list(claims.CLAIMS.values())
    todo = asked
    if not given.ids and not given.quick:
        todo = [claim for claim in asked if claims.state(claim.id, where) != "recorded"]
        print(f"{len(asked) - len(todo)} of {len(asked)} claims have a fresh record; {len(todo)} to measure")
    store = None if given.quick else given.store
    for number, claim in enumerate(todo, start=1):
        print(f"[{number}/{len(todo)}] {claim.id}", flush=True)
        try:
            with claims.training(store=store, progress=True, workers=workers):
                result = claims.measure(claim.id, **({} if given.quick else claim.recorded))
        except StoreError as error:
            raise Refusal(str(error)) from None
        print(result)
        if not given.quick:
            print(f"  written: {claims.keep(result, where)}")
    return 0


def _report(given: argparse.Namespace) -> int:
    from .report import parameters, run

    if given.help and given.name is None:
        given.show_help()
        return 0
    if given.name is None:
        raise Refusal("the following arguments are required: NAME (see stepsize report --help)")
    with _input():
        report = run.find(given.name)
        if given.help:
            _print_report(report)
            return 0
        texts = _parameters(given.p)
        # A wrong parameter is told first: it is what the reader was thinking about.
        parameters.checked(report.parameters, texts)
        if given.output is None:
            raise Refusal("the following arguments are required: -o/--output (see stepsize report --help)")
        if given.store is not None:
            if "store" not in report.parameters:
                raise Refusal(f"{report.name} trains nothing that a store could keep")
            texts["store"] = given.store
        timeout = None if given.timeout is None else _seconds("timeout", given.timeout)
        if timeout is not None and timeout <= 0:
            raise Refusal(f"timeout must be above 0 seconds, got {given.timeout}")
        try:
            if given.grid is None:
                run.write(given.name, texts, given.output, timeout, _say)
                return 0
            jobs = None if given.jobs is None else _whole("jobs", given.jobs)
            where = given.output, given.format, jobs, timeout
            failed = run.write_grid(given.name, texts, given.grid, *where, _say)
        except run.Failed as error:
            print(f"stepsize: {error}", file=sys.stderr)
            return 1
    if failed:
        print(f"stepsize: {len(failed)} failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _say(line: str) -> None:
    print(line, flush=True)


def _parameters(words: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise Refusal(f"a parameter is given as NAME=VALUE, such as seeds=3, got {word!r}")
        if name in found:
            raise Refusal(f"the parameter {name!r} is given twice")
        found[name] = value
    return found


def _print_report(report: Report) -> None:
    print(f"{report.name}\n    {report.question}")
    for parameter in report.parameters.values():
        print(f"    {parameter}")


def _bench(given: argparse.Namespace) -> int:
    from . import bench

    if given.output and not Path(given.output).absolute().parent.is_dir():
        raise Refusal(f"there is no folder {Path(given.output).absolute().parent} to hold {Path(given.output).name}")
    record = bench.run(given.quick, lambda line: print(line, flush=True))
    print("\n" + ", ".join(f"{name} {text}" for name, text in record["made"].items()))
    if given.output:
        bench.write(record, given.output)
    return 0


def _export(given: argparse.Namespace) -> int:
    from . import store

    asked = {"parquet": given.parquet, "tensorboard": given.tensorboard, "mlflow": given.mlflow}
    if not any(asked.values()):
        raise Refusal("nothing to write: give --parquet FILE, --tensorboard DIR or --mlflow URI")
    with _input():
        runs = store.open(given.store)
        if not len(runs):
            raise Refusal(f"there are no runs in {given.store} yet")
        for kind, target in asked.items():
            if target:
                getattr(runs, f"to_{kind}")(target)
                print(f"{len(runs)} runs written to {target}")
    return 0


def _rates(text: str | None) -> Any:
    """``LO:HI:N``, ``LO:HI``, a number, numbers with commas, or ``auto``."""
    from .sweep import log_grid

    if text is None or text == "auto":
        return text
    try:
        numbers = [float(word) for word in re.split("[:,]", text)]
        if ":" not in text:
            return numbers
        low, high, *count = numbers
        ends, [number] = (low, high), [int(x) for x in count] or [0]
    except ValueError:
        example = "LO:HI:N such as 1e-3:1:7, LO:HI to draw from, a list such as 0.1,0.3, or auto"
        raise Refusal(f"lr must be {example}, got {text!r}") from None
    return log_grid(*ends, number) if count else _loguniform(*ends)


def _loguniform(low: float, high: float) -> Any:
    if not 0 < low < high < float("inf"):
        raise Refusal(f"a range to draw from on a log scale must be 0 < LO < HI, got {low:g} and {high:g}")
    from scipy.stats import loguniform

    return loguniform(low, high)


def _uniform(low: float, high: float) -> Any:
    if not low < high:
        raise Refusal(f"a range to draw from must be LO < HI, got {low:g} and {high:g}")
    from scipy.stats import uniform

    return uniform(low, high - low)


RANGES = {"loguniform": _loguniform, "uniform": _uniform}


def _optimizers(texts: Sequence[str], rates: Any) -> dict[str, Any]:
    """What ``-o`` says, as :func:`stepsize.sweep.sweep` takes it."""
    optimizers: dict[str, list[dict[str, Any]]] = {}
    for text in texts:
        # The last part holds the settings, if it has an equals sign; before it stand name and variant.
        match = re.fullmatch(r"([^:=]+(?::[^:=]+)?)(?::([^:=]+=.*))?", text)
        if match is None:
            raise Refusal(f"optimizer must be NAME[:VARIANT][:K=V,…], got {text!r}")
        name, settings = match.groups()
        setting = {} if rates is None else {"lr": rates}
        optimizers.setdefault(name, []).append({**setting, **_settings(settings or "", text)})
    return {name: settings[0] if len(settings) == 1 else settings for name, settings in optimizers.items()}


def _settings(text: str, whole: str) -> dict[str, Any]:
    """``momentum=0.9,betas=(0.9,0.99),schedule=cosine`` as a dict: Python's literals, words, and ranges."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call) and not call.args
        return {str(k.arg): _literal(k.value) for k in call.keywords}
    except (SyntaxError, ValueError, TypeError, AssertionError):
        raise Refusal(f"the settings of {whole!r} must be K=V,K=V with numbers, such as momentum=0.9") from None


def _literal(value: ast.expr) -> Any:
    if isinstance(value, ast.Name):
        return value.id
    if isinstance(value, ast.List):
        return [_literal(x) for x in value.elts]
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        if value.func.id in RANGES:
            return RANGES[value.func.id](*map(ast.literal_eval, value.args))
        # A schedule with its options.
        return ast.unparse(value)
    return ast.literal_eval(value)


def _whole(name: str, text: str, least: int = 1) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise Refusal(f"{name} must be a whole number, {least} or more, got {text}")
    return value


def _seconds(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Refusal(f"{name} must be a number of seconds, got {text}") from None


def _print_runs(runs: Runs, metric: str, interval: str) -> None:
    """A table for each optimizer, the best of each, and what was done, on what."""
    settings = runs.settings(metric, interval)
    for name, group in settings.groupby("optimizer", sort=False):
        head = ["", "setting", metric, "95 % interval", "best", "n", "train_loss", "diverged"]
        rows = [
            [
                "*" if row.chosen else "",
                row.setting,
                *_estimate(row),
                f"{row.best_mean:.4f}",
                str(row.n),
                f"{row.train_loss:.4g}",
                str(row.diverged),
            ]
            for row in group.itertuples()
        ]
        print(f"\n{name}")
        _print_table(head, rows, left=(0, 1))
    summary = runs.summary(metric, budget="all", interval=interval)
    print(f"\n* chosen by mean {runs.chosen_by(metric)} over the seeds; {metric} is that of the last step,")
    print(f"  best that of each run's best moment; the intervals are over seeds, by the method {interval}.")
    for row in summary[summary.grid_edge].itertuples():
        print(f"! {row.optimizer}: {row.setting} is at the edge of its grid; the best may lie beyond.")
    if len(summary) > 1:
        print("\nbest of each optimizer")
        rows = [
            [
                row.optimizer,
                row.setting,
                *_estimate(row),
                f"{row.best_mean:.4f}",
                str(row.n),
                str(row.settings),
                _decades(runs, row.optimizer, metric),
            ]
            for row in summary.itertuples()
        ]
        head = ["optimizer", "setting", metric, "95 % interval", "best", "n", "settings tried", "good rates"]
        _print_table(head, rows, left=(0, 1))
        print("good rates: the width, in decades, of the rates that give a result within 10 % of the best.")
        print("\n" + runs.answer(metric).replace("**", ""))
    print("\n" + runs.budget())


def _decades(runs: Runs, optimizer: str, metric: str) -> str:
    width = runs.basin(optimizer, metric)
    return "–" if width != width else f"{width:.2f}"


def _estimate(row: Any) -> list[str]:
    between = f"{row.low:.4f} to {row.high:.4f}" if row.n > 1 else "none (n=1)"
    return [f"{row.mean:.4f}", between]


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for cells in [head, ["-" * width for width in widths], *rows]:
        padded = [f"{c:<{w}}" if i in left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        print("  ".join(padded).rstrip())


# --- doctor ---------------------------------------------------------------------------------------------------------


def _doctor(given: argparse.Namespace) -> int:
    """Print one line per thing; 1 if something that every chapter needs is missing."""
    lacks = 0
    for name, check, needed in CHECKS:
        try:
            mark, words = "ok", check()
        except Exception as error:
            mark, words = ("MISSING" if needed else "without"), f"{error}"
            lacks += needed
        print(f"{mark:<8} {name:<13} {words}")
    print("\nAll that the chapters need is here." if not lacks else f"\n{lacks} of these must be mended first.")
    return int(lacks > 0)


def _python() -> str:
    return f"{platform.python_version()}, {platform.system()} on {platform.machine()}, {os.cpu_count()} processors"


def _torch() -> str:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU, which no chapter needs"
    return f"{torch.__version__}, {torch.get_num_threads()} threads; {gpu}"


def _version(package: str) -> Callable[[], str]:
    def check() -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            raise Refusal(f"not installed: pip install {package}") from None

    return check


def _program(names: Sequence[str], mend: str) -> Callable[[], str]:
    def check() -> str:
        found = next(filter(None, map(shutil.which, names)), None)
        if found is None:
            raise Refusal(mend)
        return found

    return check


def _folder() -> str:
    with tempfile.TemporaryFile(dir="."):
        return f"{Path.cwd()} can be written to"


def _store() -> str:
    from .store import Store

    with tempfile.TemporaryDirectory() as folder:
        Store(Path(folder) / "check.db").close()
        Store(Path(folder) / "check.db", create=False).close()
    return f"SQLite {sqlite3.sqlite_version}: a store can be made and opened"


def _packages(mend: str, *names: str) -> Callable[[], str]:
    def check() -> str:
        missing = [name for name in names if find_spec(name) is None]
        if missing:
            raise Refusal(f"{', '.join(missing)} not installed: {mend}")
        return ", ".join(names)

    return check


CHECKS: list[tuple[str, Callable[[], str], bool]] = [
    ("python", _python, True),
    ("torch", _torch, True),
    *((package, _version(package), True) for package in ("numpy", "pandas", "matplotlib", "scikit-learn", "stepsize")),
    ("folder", _folder, True),
    ("store", _store, True),
    (
        "chromium",
        _program(["chromium", "chromium-browser", "google-chrome"], "needed only for PDF: apt install chromium"),
        False,
    ),
    ("compiler", _program(["cc", "gcc", "clang"], "needed only for fast steps: apt install gcc"), False),
    (
        "tasks",
        _packages("pip install 'stepsize[tasks]'", "babel", "gymnasium", "jiwer", "num2words", "sacrebleu"),
        False,
    ),
    ("report", _packages("pip install 'stepsize[report]'", "ipykernel", "nbconvert", "papermill"), False),
    ("cluster", _packages("pip install 'stepsize[cluster]'", "distributed"), False),
    ("export", _packages("pip install 'stepsize[export]'", "mlflow", "tensorboard"), False),
    ("classroom", _packages("pip install 'stepsize[classroom]'", "nbgrader"), False),
    ("bubblewrap", _program(["bwrap"], "needed only to grade safely: apt install bubblewrap"), False),
]


if __name__ == "__main__":
    sys.exit(main())
