"""How fast we are, as ratios to named rivals in one run: ``stepsize bench``."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..engines.compiled import compiler
from . import step, sweep

# Which way is better, and the ratio to reach.
TARGETS = {"step": ("<=", 1.0), "libraries": ("<=", 0.5), "namesake": ("<=", 1.0), "cold": (">=", 8.0)}
TARGETS |= {"first": ("<=", 2.0), "import": ("<=", 0.3)}
TARGETS |= {"jax": (">=", 1.0), "convolutions": (">=", 1.9), "state": ("<=", 0.5)}
GPU = ["NovoGrad step, 85 M parameters, to copy bandwidth", "sweep of 128 runs, to a loop of torch.optim.Adam(fused)"]


def run(quick: bool = False, say: Callable[[str], Any] = print) -> dict[str, Any]:
    """Measure every line of the table; ``say`` gets each as it is done. About 5 minutes; 30 s if ``quick``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(_cores())
    lines: list[dict[str, Any]] = []
    try:
        for line in _lines(quick):
            lines.append(line | {"target": " ".join(map(str, TARGETS[line["id"]])), "reached": _reached(line)})
            say(_text(lines[-1]))
        for what in GPU:
            say(f"{what}: not run on a GPU here; make gpu has it")
        growth = {} if quick else {"parameters": step.growth(), "runs": sweep.growth(), "batch": sweep.batch_growth()}
    finally:
        torch.set_num_threads(threads)
    return {"made": made(), "quick": quick, "lines": lines, "growth": growth}


def _lines(quick: bool) -> Iterator[dict[str, Any]]:
    pause = 1.0 if quick else 4.0
    seconds = step.imported(1 if quick else 5)
    yield {"id": "import", "what": "import stepsize.optim and a first optimizer, after torch", "rival": "seconds"} | {
        "ratio": seconds
    }
    for model in ("mlp", "resnet18") if quick else step.MODELS:
        shapes = step.MODELS[model]()
        size = f"{len(shapes)} tensors, {sum(map(math.prod, shapes)):,} parameters"
        medians = step.novograd(model, 3 * pause)
        ours = medians.pop("NovoGrad")
        line = {"what": f"NovoGrad step, {size}"}
        seconds = step.first(model)
        yield {"id": "first", "what": f"first {line['what']}, compiler included", "rival": "seconds", "ratio": seconds}
        yield {"id": "step", **line, "rival": step.MEASURE} | _ratio(ours, medians.pop(step.MEASURE))
        if medians:
            fastest = min(medians, key=medians.__getitem__)
            yield {"id": "libraries", **line, "rival": fastest} | _ratio(ours, medians[fastest])
        else:
            why = "none is installed here; make bench has them"
            yield {"id": "libraries", **line, "rival": "other libraries", "ratio": None, "why": why}
        for name in step.NAMESAKES:
            medians = step.namesake(name, model, pause)
            ours = medians.pop(name)
            fastest = min(medians, key=medians.__getitem__)
            line = {"id": "namesake", "what": f"{name} step, {size}", "rival": f"{fastest}"}
            yield line | _ratio(ours, medians[fastest])
    yield from sweep.lines(quick)


def _ratio(ours: float, theirs: float) -> dict[str, float]:
    return {"ours": ours, "theirs": theirs, "ratio": ours / theirs}


def _reached(line: dict[str, Any]) -> bool | None:
    if line["ratio"] is None:
        return None
    way, target = TARGETS[line["id"]]
    # The printed figure has two decimals.
    return round(line["ratio"], 2) <= target if way == "<=" else round(line["ratio"], 2) >= target


def _text(line: dict[str, Any]) -> str:
    if line["ratio"] is None:
        return f"{'–':>6}  {line['what']} to {line['rival']}: not measured, {line['why']}"
    spread = f" [{line['spread'][0]:.2f}, {line['spread'][1]:.2f}]" if "spread" in line else ""
    mark = "" if line["reached"] else "  MISSED"
    return f"{line['ratio']:6.2f}{spread}  {line['what']} to {line['rival']} (to reach: {line['target']}){mark}"


def write(record: dict[str, Any], path: str | Path) -> None:
    """Keep the record as JSON."""
    Path(path).write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def made() -> dict[str, str]:
    """Machine and versions, for the record."""
    names = ["torch", "numpy", "stepsize", "jax", "pytorch_optimizer", "torch-optimizer", "timm"]
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions | {
        "python": platform.python_version(),
        "machine": _processor(),
        "cores": str(_cores()),
        "compiler": _compiler(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _compiler() -> str:
    command = compiler()
    if not command:
        return "none"
    told = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    return told.splitlines()[0] if told else command[0]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


__all__ = ["GPU", "TARGETS", "made", "run", "write"]
