"""Ten steps of every NovoGrad that installs here, run for real: `make which-novograd` records them.

Run in the environment of the rivals. Of packages that would pull in too much, only the wheel is fetched, and the
one file imported out of it.
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

RESULT = Path(__file__).parents[1] / "book" / "results" / "which-novograd.json"
LR, START, STEPS = 0.01, [3.0, -4.0, 0.5, 1.0], 10
DECAYS = (0.0, 0.1)

Make = Callable[..., torch.optim.Optimizer]


def gradients() -> list[list[float]]:
    """Ten gradients of a layer of four weights; the third is ten times as large as the others."""
    drawn = torch.randn(STEPS, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn[2] *= 10
    return [[round(x, 4) for x in row] for row in drawn.tolist()]


def steps(make: Make, decay: float) -> list[list[float]]:
    """How far a ``torch.optim`` optimizer moves the layer at each gradient."""
    p = torch.tensor(START, requires_grad=True)
    optimizer = make([p], lr=LR, weight_decay=decay)
    moves = []
    for g in gradients():
        before = p.detach().clone()
        p.grad = torch.tensor(g)
        optimizer.step()
        moves.append((p.detach() - before).tolist())
    return moves


def optax_steps(optax: Any, decay: float) -> list[list[float]]:
    """The same for optax."""
    jnp = importlib.import_module("jax.numpy")
    method = optax.novograd(LR, weight_decay=decay)
    p = jnp.array(START)
    state, moves = method.init(p), []
    for g in gradients():
        move, state = method.update(jnp.array(g), state, p)
        p = p + move
        moves.append([float(x) for x in move])
    return moves


def out_of(wheels: Path, package: str, folder: str, module: str) -> tuple[ModuleType, str]:
    """A module of a package that is not installed, read from its wheel with its neighbours, and the version."""
    wheel = next(wheels.glob(f"{package}-*.whl"))
    shell = ModuleType(f"from_{package}")
    shell.__path__ = [f"{wheel}/{folder}"]
    sys.modules[shell.__name__] = shell
    return importlib.import_module(f"{shell.__name__}.{module}"), wheel.name.split("-")[1]


def implementations(wheels: Path) -> Iterator[tuple[str, str, str, Callable[[float], list[list[float]]]]]:
    """Name, version, the variant that should explain it, and how to run it."""
    torch_optimizer = importlib.import_module("torch_optimizer")
    yield "torch-optimizer", version("torch-optimizer"), "torch-optimizer", lambda d: steps(torch_optimizer.NovoGrad, d)
    timm, number = out_of(wheels, "timm", "timm/optim", "nvnovograd")
    yield "timm NvNovoGrad", number, "timm", lambda d: steps(timm.NvNovoGrad, d)
    nemo, number = out_of(wheels, "nemo_toolkit", "nemo/core/optim", "novograd")
    luc = {"luc": True, "luc_trust": 1e-3}
    yield (
        "NeMo, luc=True",
        number,
        "nemo",
        lambda d: steps(lambda p, **h: nemo.Novograd(p, betas=(0.95, 0.98), **luc, **h), d),
    )
    optax = importlib.import_module("optax")
    yield "optax", version("optax"), "optax", lambda d: optax_steps(optax, d)
    newest = importlib.import_module("pytorch_optimizer")
    yield "pytorch_optimizer", version("pytorch_optimizer"), "pytorch-optimizer", lambda d: steps(newest.NovoGrad, d)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pytorch_optimizer"]:
        del sys.modules[name]
    wheel = next(wheels.glob("pytorch_optimizer-3.10*.whl"))
    sys.path.insert(0, str(wheel))
    old = importlib.import_module("pytorch_optimizer")
    yield "pytorch_optimizer", wheel.name.split("-")[1], "pytorch-optimizer-3.10", lambda d: steps(old.NovoGrad, d)


def main(arguments: Sequence[str]) -> int:
    """Run all and write the record."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: which_novograd.py FOLDER_OF_WHEELS; `make which-novograd` gets them", file=sys.stderr)
        return 2
    told = []
    for name, number, variant, run in implementations(Path(arguments[0]).resolve()):
        print(f"{name} {number}")
        moves = {f"{decay:g}": run(decay) for decay in DECAYS}
        told.append({"name": name, "version": number, "variant": variant, "moves": moves})
    made = {"python": platform.python_version(), "torch": torch.__version__, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
    record = {"lr": LR, "start": START, "gradients": gradients(), "implementations": told, "made": made}
    RESULT.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written: {RESULT.relative_to(Path.cwd())}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
