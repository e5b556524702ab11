"""How fast a sweep is: many runs at once beside a plain loop of torch's Adam, and beside JAX."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch.nn import functional as F

from ..engines import compiled
from ..engines.sweep import EVALUATIONS
from ..search import log_grid
from ..sweep import sweep
from ..tasks import find

RUNS, STEPS = 32, 500


def lines(quick: bool = False) -> Iterator[dict[str, Any]]:
    """One row for each line of the table: ``id``, ``what``, ``rival``, ``ours`` and ``theirs`` (seconds), ``ratio``."""
    repeats = 1 if quick else 3
    steps = STEPS // 5 if quick else STEPS
    yield {"id": "cold"} | _ratio(
        f"sweep of {RUNS} runs, digits-mlp, compile time included over {steps} steps",
        "loop of torch.optim.Adam, which measures nothing",
        lambda: _fresh(lambda: _mlp(steps)),
        lambda: _loop("digits-mlp", runs=4, steps=steps) * RUNS / 4,
        repeats,
    )
    yield {"id": "jax"} | _against_jax(steps, repeats)
    runs, steps = (4, 20) if quick else (8, 60)
    # The processes of a sweep stay; their start is not part of a line on steady speed.
    _resnet(2, 1)
    yield {"id": "convolutions"} | _ratio(
        f"sweep of {runs} runs, digits-resnet, {_cores()} processes",
        f"loop of torch.optim.Adam in one process, with the same {EVALUATIONS + 1} measurements of a run",
        lambda: _resnet(runs, steps),
        lambda: _loop("digits-resnet", runs=2, steps=steps, measured=True) * runs / 2,
        repeats,
    )
    frame = sweep("digits-mlp", {"novograd": {}, "adam": {}}, seeds=1, steps=1, progress=False).frame()
    ours, theirs = frame.groupby("optimizer")["state_bytes"].first()[["novograd", "adam"]]
    yield {"id": "state"} | {
        "what": "NovoGrad state",
        "rival": "Adam state",
        "ours": int(ours),
        "theirs": int(theirs),
        "ratio": float(ours / theirs),
    }


def growth(counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128), steps: int = 100) -> list[dict[str, Any]]:
    """Run-steps a second of sweeps of digits-mlp with so many runs, in this process."""
    rows = []
    for count in counts:
        _mlp(10, count)
        seconds = min(_timed(lambda: _mlp(steps, count)) for _ in range(2))  # noqa: B023
        rows.append({"runs": count, "run_steps_per_second": count * steps / seconds})
    return rows


def batch_growth(sizes: tuple[int, ...] = (8, 32, 128, 512), runs: int = 8, steps: int = 50) -> list[dict[str, Any]]:
    """Examples a second of sweeps of digits-mlp with batches of so many."""
    task, rows = find("digits-mlp"), []
    usual = task.batch  # type: ignore[attr-defined]
    try:
        for size in sizes:
            task.batch = size  # type: ignore[attr-defined]
            _mlp(10, runs)
            seconds = min(_timed(lambda: _mlp(steps, runs)) for _ in range(2))
            rows.append({"batch": size, "examples_per_second": runs * steps * size / seconds})
    finally:
        task.batch = usual  # type: ignore[attr-defined]
    return rows


def _mlp(steps: int, runs: int = RUNS) -> None:
    rates = log_grid(1e-4, 1e-2, runs)
    sweep("digits-mlp", {"adam": {"lr": rates}}, seeds=1, steps=steps, progress=False)


def _resnet(runs: int, steps: int) -> None:
    rates = log_grid(1e-4, 1e-2, runs)
    sweep("digits-resnet", {"adam": {"lr": rates}}, seeds=1, steps=steps, workers=_cores(), progress=False)


def _loop(name: str, runs: int, steps: int, measured: bool = False) -> float:
    """Seconds that anyone's loop takes: one run after another, torch's Adam, torch's own number of threads.

    With ``measured`` it has the task's metrics as often as the sweep has.
    """
    task = find(name)
    x, y = task.data["train"]
    began = time.perf_counter()
    for seed in range(runs):
        params = {key: p.requires_grad_() for key, p in task.init(seed).items()}
        optimizer = torch.optim.Adam(params.values(), lr=1e-3)
        moments = {round(steps * i / EVALUATIONS) for i in range(EVALUATIONS + 1)} if measured else set()
        for step, (places,) in enumerate(itertools.islice(task.batches(seed), steps)):
            if step in moments:
                with torch.no_grad():
                    task.evaluate(params)
            optimizer.zero_grad()
            F.cross_entropy(task.forward(params, x[places]), y[places]).backward()  # type: ignore[attr-defined]
            optimizer.step()
        if steps in moments:
            with torch.no_grad():
                task.evaluate(params)
    return time.perf_counter() - began


def _fresh(what: Callable[[], None]) -> float:
    with compiled.empty_cache():
        return _timed(what)


def _timed(what: Callable[[], Any]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def _ratio(what: str, rival: str, ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Both in turn, as often as ``repeats``; the ratio says how many times as long the rival takes."""
    pairs = []
    for _ in range(repeats):
        seconds = []
        for side in (theirs, ours):
            began = time.perf_counter()
            told = side()
            # Some tell how long they took themselves.
            seconds.append(told if isinstance(told, float) else time.perf_counter() - began)
        pairs.append(seconds)
    ratios = [them / us for them, us in pairs]
    return {
        "what": what,
        "rival": rival,
        "ours": statistics.median(us for _, us in pairs),
        "theirs": statistics.median(them for them, _ in pairs),
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
    }


def _against_jax(steps: int, repeats: int) -> dict[str, Any]:
    what, rival = f"sweep of {RUNS} runs, digits-mlp, steady", "JAX jit(vmap(scan)), which measures nothing"
    try:
        jax = import_module("jax")
    except ImportError:
        return {"what": what, "rival": rival, "ratio": None, "why": "JAX is not installed: make bench has it"}
    theirs = _jax_sweep(jax, steps)
    theirs()
    _mlp(10)
    return _ratio(what, rival, lambda: _mlp(steps), theirs, repeats)


def _jax_sweep(jax: Any, steps: int) -> Callable[[], None]:
    """The same runs as JAX would have them: all steps of all runs in one program."""
    np, jnp = import_module("numpy"), jax.numpy
    task = find("digits-mlp")
    x, y = (jnp.asarray(part.numpy()) for part in task.data["train"])
    starts = task.init(0)
    params = {key: jnp.asarray(p.numpy()) for key, p in starts.items()}
    places = jnp.asarray(np.stack([b.numpy() for (b,) in itertools.islice(task.batches(0), steps)]))

    def loss(params: Any, places: Any) -> Any:
        hidden = jax.nn.relu(x[places] @ params["hidden.weight"].T + params["hidden.bias"])
        logits = hidden @ params["output.weight"].T + params["output.bias"]
        right = jnp.take_along_axis(logits, y[places][:, None], 1)[:, 0]
        return (jax.scipy.special.logsumexp(logits, 1) - right).mean()

    def run(lr: Any) -> Any:
        def step(carry: Any, places: Any) -> Any:
            params, m, v, t = carry
            value, g = jax.value_and_grad(loss)(params, places)
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
            v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
            scale = lr / (1 - 0.9**t)
            params = jax.tree.map(lambda p, m, v: p - scale * m / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8), params, m, v)
            return (params, m, v, t + 1), value

        zeros = jax.tree.map(jnp.zeros_like, params)
        return jax.lax.scan(step, (params, zeros, zeros, 1.0), places)

    program = jax.jit(jax.vmap(run))
    rates = jnp.asarray(log_grid(1e-4, 1e-2, RUNS))
    return lambda: jax.block_until_ready(program(rates))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
