"""What only a GPU can show: its checks, its lines of the benchmark, and one sweep at scale. `make gpu` runs it.

    python tools/gpu.py              where torch finds a GPU; else it says so, and runs nothing
    python tools/gpu.py --rehearse   the same code on the CPU, small; it writes no record

It needs PyTorch, Triton and NumPy, and nothing else. The record goes into book/results/gpu.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "lib"))

from stepsize import optim  # noqa: E402
from stepsize.engines import sweep as engine  # noqa: E402
from stepsize.rules import RULES  # noqa: E402
from stepsize.tasks import find  # noqa: E402

RECORD = ROOT / "book" / "results" / "gpu.json"
# Text that comes with Python, so that no other package is needed.
TASK = "docs-transformer-xl"
SHAPES = [(16, 8), (16,), (4, 3, 3, 3), ()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, small, without a record")
    rehearse = parser.parse_args().rehearse
    if not torch.cuda.is_available() and not rehearse:
        print("No GPU here: nothing was run, and no record was written.")
        return 0
    device = torch.device("cpu" if rehearse else "cuda")
    checks = {**rules_agree(device), "sweep": sweep_agrees(device)}
    for name, passed in checks.items():
        print(f"{'ok' if passed else 'FAILED':8} {name}", flush=True)
    lines = [
        step_line(device, 2**16 if rehearse else 85_000_000),
        sweep_line(device, *((4, 3) if rehearse else (128, 50))),
    ]
    for line in lines:
        print(json.dumps(line), flush=True)
    scale = sweep_at_scale(device, *((4, 4) if rehearse else (512, 350)))
    print(json.dumps(scale))
    if not rehearse:
        made = {
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "python": platform.python_version(),
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        }
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps({"made": made, "checks": checks, "lines": lines, "scale": scale}, indent=1) + "\n")
        print(f"written: {RECORD.relative_to(ROOT)}")
    return int(not all(checks.values()))


def rules_agree(device: torch.device) -> dict[str, bool]:
    """Every optimizer on the device against the plain engine on the CPU, ten steps in float64, both engines."""
    passed = {}
    for (name, face), how in itertools.product(optim.OPTIMIZERS.items(), ("loop", "auto", "compiled")):
        if name not in RULES:
            continue
        random = torch.Generator().manual_seed(0)
        starts = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in SHAPES]
        ours = [torch.nn.Parameter(p.to(device, copy=True)) for p in starts]
        plain = [torch.nn.Parameter(p.clone()) for p in starts]
        make: Callable[..., torch.optim.Optimizer] = face
        pair = make(ours, engine=how), make(plain, engine="loop")
        for _ in range(10):
            for p, q in zip(ours, plain, strict=True):
                q.grad = torch.randn(q.shape, generator=random, dtype=q.dtype)
                p.grad = q.grad.to(device, copy=True)
            for optimizer in pair:
                optimizer.step()
        close = [torch.allclose(p.cpu(), q, rtol=1e-10, atol=1e-12) for p, q in zip(ours, plain, strict=True)]
        passed[f"{name}, {how}"] = all(close)
    return passed


def sweep_agrees(device: torch.device) -> bool:
    """A run in a batch on the device has the losses that it has alone on the CPU, to float32 rounding."""
    steps, cpu = 5, torch.device("cpu")
    ((_, alone),) = _train(cpu, [3], steps)
    together = dict(_train(device, [1, 2, 3, 4], steps))[2]
    pairs = zip(alone.curves["batch_loss"][1], together.curves["batch_loss"][1], strict=True)
    return all(abs(a - b) <= 1e-4 * abs(a) for a, b in pairs)


def step_line(device: torch.device, numbers: int) -> dict[str, Any]:
    """NovoGrad's step on tensors of so many numbers against what copying the bytes that must move would take."""
    shapes = [(numbers // 64,)] * 64
    params = [torch.nn.Parameter(torch.randn(shape, device=device)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer = optim.NovoGrad(params, engine="compiled")
    # Read: p, g twice (norm and update), m. Written: p, m.
    moved = 6 * 4 * sum(p.numel() for p in params)
    source = torch.empty(sum(p.numel() for p in params), device=device)
    target = torch.empty_like(source)
    copy = _median(lambda: target.copy_(source), device)
    bandwidth = 2 * 4 * source.numel() / copy
    seconds = _median(optimizer.step, device)
    return {
        "what": f"NovoGrad step, {numbers:,} parameters",
        "rival": "device copy bandwidth, bytes that must move",
        "seconds": seconds,
        "ratio": moved / bandwidth / seconds,
        "gigabytes_per_second": moved / seconds / 1e9,
    }


def sweep_line(device: torch.device, runs: int, steps: int) -> dict[str, Any]:
    """So many runs at once against a loop of torch's fused Adam over a few of them."""
    _train(device, list(range(runs)), 2)
    began = time.perf_counter()
    _train(device, list(range(runs)), steps)
    ours = time.perf_counter() - began
    task, alone = find(TASK), min(2, runs)
    began = time.perf_counter()
    for seed in range(alone):
        params = {name: p.to(device).requires_grad_() for name, p in task.init(seed).items()}
        carry = {name: value.to(device) for name, value in task.carry().items()}
        optimizer = torch.optim.Adam(params.values(), lr=1e-3, fused=True)
        for batch in itertools.islice(task.batches(seed), steps):
            optimizer.zero_grad()
            loss, carry = task.advance(params, tuple(x.to(device) for x in batch), carry)
            loss.backward()
            carry = {name: value.detach() for name, value in carry.items()}
            optimizer.step()
    _wait(device)
    theirs = (time.perf_counter() - began) * runs / alone
    what = f"sweep of {runs} runs, {TASK}, {steps} steps, with its measurements"
    return {
        "what": what,
        "rival": "loop of torch.optim.Adam(fused)",
        "ours": ours,
        "theirs": theirs,
        "ratio": theirs / ours,
    }


def sweep_at_scale(device: torch.device, runs: int, steps: int) -> dict[str, Any]:
    """Rates and seeds of one rule, all at once: how many run-steps a second, and what the rates gave."""
    began = time.perf_counter()
    results = [result for _, result in _train(device, list(range(runs)), steps)]
    seconds = time.perf_counter() - began
    ends = [result.curves["val_perplexity"][1][-1] for result in results]
    return {
        "task": TASK,
        "runs": runs,
        "steps": steps,
        "seconds": seconds,
        "run_steps_per_second": runs * steps / seconds,
        "median_val_perplexity": statistics.median(ends),
    }


def _train(device: torch.device, seeds: list[int], steps: int) -> list[tuple[int, engine.Result]]:
    task, rule = find(TASK), RULES["adam"]
    # On a GPU many small runs are one large one.
    task.batched = True
    hypers = [rule.defaults] * len(seeds)
    return list(engine.train(task, seeds, steps, device, lambda params: engine.Batched(rule, hypers, params)))


def _median(what: Callable[[], Any], device: torch.device, times: int = 20) -> float:
    for _ in range(3):
        what()
    seconds = []
    for _ in range(times):
        _wait(device)
        began = time.perf_counter()
        what()
        _wait(device)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main())
