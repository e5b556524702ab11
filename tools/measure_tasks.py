"""Train every task with AdamW as it comes, five seeds, one core: does it reach its target, and in what time?

    .venv/bin/python tools/measure_tasks.py            all tasks
    .venv/bin/python tools/measure_tasks.py docs-lstm  one of them

Writes book/results/tasks.json, which the page on tasks shows; run it where nothing else runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from stepsize import stats, sweep
from stepsize.fingerprint import made_by, task_hash
from stepsize.tasks import TASKS, find

RECORD = Path(__file__).parents[1] / "book" / "results" / "tasks.json"
SEEDS = 5
# Tasks that take longer than this are not for one core.
LONGEST = 60.0


def measure(name: str) -> dict[str, object]:
    """What AdamW reaches on a task, and in how many seconds a run."""
    task = find(name)
    # The first run pays for what is imported and made once.
    sweep(name, {"adamw": {}}, seeds=[0], steps=2, workers=1, progress=False)
    frame = sweep(name, {"adamw": {}}, seeds=SEEDS, workers=1).frame()
    values = frame[f"final_{task.metric}"].tolist()
    reached = [value >= task.target if task.metric in task.larger else value <= task.target for value in values]
    return {
        "parameters": sum(p.numel() for p in task.init(0).values()),
        "steps": task.steps,
        "metric": task.metric,
        "larger": task.metric in task.larger,
        "target": task.target,
        "reached": values,
        "interval": stats.interval(values)[:3],
        "all_reached": all(reached),
        "seconds_stated": task.seconds,
        "seconds": float(frame["seconds"].mean()),
        "batched": task.batched,
        "code": task_hash(type(task)),
        "made": made_by("batched", torch.device("cpu")),
    }


def main(names: list[str]) -> int:
    known = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    wrong = 0
    for name in names or [name for name, task in TASKS.items() if task.seconds <= LONGEST]:
        known[name] = found = measure(name)
        wrong += not found["all_reached"]
        mark = "" if found["all_reached"] else "   TARGET MISSED"
        values = " ".join(f"{value:.4g}" for value in found["reached"])  # type: ignore[attr-defined]
        print(f"{name:22} {found['seconds']:6.2f} s (stated {found['seconds_stated']:g})  {values}{mark}", flush=True)
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps({key: known[key] for key in sorted(known)}, indent=1) + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
