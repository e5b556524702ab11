"""How fast a step is: ours beside torch's and other libraries', on tensors of the shapes that real models have."""

from __future__ import annotations

import inspect
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch.optim import Optimizer

from .. import optim, search
from ..engines import compiled

Shapes = list[tuple[int, ...]]


def _mlp() -> Shapes:
    return [shape for a, b in ((784, 60), (60, 60), (60, 10)) for shape in ((b, a), (b,))]


def _resnet18() -> Shapes:
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    width = 64
    for new in (64, 64, 128, 128, 256, 256, 512, 512):
        shapes += [(new, width, 3, 3), (new,), (new,), (new, new, 3, 3), (new,), (new,)]
        shapes += [(new, width, 1, 1), (new,), (new,)] if new != width else []
        width = new
    return [*shapes, (1000, 512), (1000,)]


def _gpt2() -> Shapes:
    """GPT-2 small with 65 characters and a context of 256."""
    n = 768
    block = [(n,), (n,), (3 * n, n), (3 * n,), (n, n), (n,), (n,), (n,), (4 * n, n), (4 * n,), (n, 4 * n), (n,)]
    return [(65, n), (256, n), *block * 12, (n,), (n,)]


MODELS: dict[str, Callable[[], Shapes]] = {"mlp": _mlp, "resnet18": _resnet18, "gpt2": _gpt2}

# The measure of all, and what it is held to: ours, its options, torch's, its options.
MEASURE = "torch AdamW fused"
Made = tuple[Callable[..., Optimizer], dict[str, Any]]
NAMESAKES: dict[str, tuple[Made, Made]] = {
    "AdamW": ((optim.AdamW, {"variant": "torch"}), (torch.optim.AdamW, {})),
    "Adam": ((optim.Adam, {}), (torch.optim.Adam, {})),
    "SGD with momentum": (
        (optim.SGD, {"momentum": 0.9, "variant": "torch"}),
        (torch.optim.SGD, {"lr": 1e-3, "momentum": 0.9}),
    ),
    "NAG": ((optim.NAG, {"variant": "torch"}), (torch.optim.SGD, {"lr": 1e-3, "momentum": 0.9, "nesterov": True})),
    "Adagrad": ((optim.Adagrad, {}), (torch.optim.Adagrad, {})),
    "RMSprop": ((optim.RMSprop, {}), (torch.optim.RMSprop, {})),
    "Adadelta": ((optim.Adadelta, {}), (torch.optim.Adadelta, {})),
    "NAdam": ((optim.NAdam, {"variant": "torch"}), (torch.optim.NAdam, {})),
    "AMSGrad": ((optim.AMSGrad, {"variant": "torch"}), (torch.optim.Adam, {"amsgrad": True})),
    "RAdam": ((optim.RAdam, {"variant": "torch"}), (torch.optim.RAdam, {})),
}
# Other libraries' NovoGrad: module, class, and the settings of which the faster counts.
LIBRARIES: dict[str, tuple[str, str, list[dict[str, bool]]]] = {
    "pytorch_optimizer": ("pytorch_optimizer", "NovoGrad", [{"foreach": False}, {"foreach": True}]),
    "torch-optimizer": ("torch_optimizer", "NovoGrad", [{}]),
    "timm": ("timm.optim", "NvNovoGrad", [{}]),
}


def novograd(model: str, seconds: float) -> dict[str, float]:
    """Medians of a step of our NovoGrad, of torch's fused AdamW, and of each library's NovoGrad that is here."""
    makers: dict[str, Callable[..., Optimizer]] = {
        "NovoGrad": partial(optim.NovoGrad, engine="compiled"),
        MEASURE: partial(torch.optim.AdamW, fused=True),
    }
    for library, (module, name, settings) in LIBRARIES.items():
        try:
            face = getattr(import_module(module), name)
        except (ImportError, AttributeError, RuntimeError):
            continue
        for setting in settings:
            if not setting or "foreach" in inspect.signature(face).parameters:
                words = "".join(f" {key}={value}" for key, value in setting.items())
                makers[f"{library}{words}"] = partial(face, lr=1e-3, **setting)
    return _medians(makers, MODELS[model](), seconds)


def namesake(name: str, model: str, seconds: float) -> dict[str, float]:
    """Medians of a step of ours and of torch's, in each way that torch has: fused, foreach, one by one."""
    (ours, options), (theirs, given) = NAMESAKES[name]
    makers: dict[str, Callable[..., Optimizer]] = {name: partial(ours, **options, engine="compiled")}
    for way in ("fused", "foreach"):
        if way in inspect.signature(theirs).parameters:
            makers[f"torch {way}"] = partial(theirs, **given, **{way: True})
    makers["torch one by one"] = partial(theirs, **given, foreach=False)
    return _medians(makers, MODELS[model](), seconds)


def beside(names: Sequence[str], model: str, seconds: float) -> dict[str, dict[str, float]]:
    """For each optimizer of ours and for torch's fused AdamW, by name: ``seconds`` of a step, ``bytes`` of state.

    A step's time is the median of many, in turns with the others'; ``seconds`` is how long that goes on. ``names`` are
    as in a sweep, also of variants; each has its defaults.
    """
    made: dict[str, Optimizer] = {}

    def keep(name: str, make: Callable[..., Optimizer]) -> Callable[..., Optimizer]:
        return lambda params: made.setdefault(name, make(params))

    makers: dict[str, Callable[..., Optimizer]] = {MEASURE: partial(torch.optim.AdamW, fused=True)}
    makers |= {name: partial(search.optimizer, name, hyper=search.defaults(name), engine="auto") for name in names}
    medians = _medians({name: keep(name, make) for name, make in makers.items()}, MODELS[model](), seconds)
    return {name: {"seconds": medians[name], "bytes": float(state_bytes(made[name]))} for name in makers}


def state_bytes(optimizer: Optimizer) -> int:
    """The bytes of an optimizer's state, its count of steps apart."""
    values = [value for state in optimizer.state.values() for name, value in state.items() if name != "step"]
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, torch.Tensor))


def namesake_of(name: str) -> str | None:
    """Under which of ``NAMESAKES`` the rule of that name is measured beside torch's own, if torch has one."""
    known = {"sgdm": "SGD with momentum"}.get(name, optim.OPTIMIZERS[name.partition(":")[0]].__name__)
    return known if known in NAMESAKES and ":" not in name else None


def first(model: str) -> float:
    """Seconds of NovoGrad's first step where nothing was compiled before: it makes the state too."""
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in MODELS[model]()]
    for p in params:
        p.grad = torch.ones_like(p)
    with compiled.empty_cache():
        optimizer = optim.NovoGrad(params, engine="compiled")
        began = time.perf_counter()
        optimizer.step()
        return time.perf_counter() - began


IMPORT = """
import time, torch
began = time.perf_counter()
import stepsize.optim
stepsize.optim.Adam([torch.nn.Parameter(torch.zeros(3))]).zero_grad()
print(time.perf_counter() - began)
"""


def imported(times: int) -> float:
    """Seconds that the library and a first optimizer take in a process that has torch: the median of ``times``."""
    command = [sys.executable, "-c", IMPORT]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(times)]
    return statistics.median(float(run.stdout) for run in runs)


def growth(sizes: Sequence[int] = (10**3, 10**4, 10**5, 10**6, 10**7), seconds: float = 1.0) -> list[dict[str, float]]:
    """Seconds of a step on 16 tensors of so many numbers in all: NovoGrad compiled and plain, torch's fused AdamW."""
    rows = []
    for size in sizes:
        makers: dict[str, Callable[..., Optimizer]] = {
            "compiled": partial(optim.NovoGrad, engine="compiled"),
            "loop": partial(optim.NovoGrad, engine="loop"),
            MEASURE: partial(torch.optim.AdamW, fused=True),
        }
        rows.append({"parameters": size} | _medians(makers, [(size // 16,)] * 16, seconds))
    return rows


def _medians(makers: Mapping[str, Callable[..., Optimizer]], shapes: Shapes, seconds: float) -> dict[str, float]:
    """The median time of a step of each; they take turns, so that what disturbs one disturbs all."""
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in params:
        p.grad = 1e-3 * torch.randn_like(p)
    made = {name: make(params) for name, make in makers.items()}
    for optimizer in made.values():
        for _ in range(2):  # the first makes the state, and compiles
            optimizer.step()
    times: dict[str, list[float]] = {name: [] for name in made}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(next(iter(times.values()))) < 5:
        for name, optimizer in made.items():
            began = time.perf_counter()
            optimizer.step()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}
