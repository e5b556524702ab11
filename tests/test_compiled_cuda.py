"""The compiled engine's kernels for a GPU: equal to the loop in Triton's interpreter, on the CPU. No GPU has run them.

Triton is optional: its checks run in processes of their own, where it is installed, and else are skipped with a word.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from stepsize import optim
from stepsize.engines import compiled, compiled_cuda, loop, print_triton
from stepsize.engines.print_triton import Printer
from stepsize.engines.trace import Node, Untraceable, trace
from stepsize.rules import Rule, find
from test_compiled import NAMES, TOLERANCE, assert_close, moved, other_values, run
from test_optimizers import parameters, tensors, train

F32, F64 = torch.float32, torch.float64
# The last is of more pieces than there may be, so that each has two blocks; no other but the number is whole blocks.
SHAPES, BLOCK, PIECES = ((), (7,), (5, 6), (3, 2, 2, 2), (203,)), 64, 2
# With numbers per row or column of a matrix.
LOOPED = ("adafactor", "nd_adam")
needs_triton = pytest.mark.skipif(not compiled_cuda.available(), reason="Triton is not installed: pip install triton")


def printed(name: str, ndim: int, hyper: dict[str, Any] | None = None, real: str = "float32") -> Printer:
    rule = find(name)
    return Printer(trace(rule, hyper or rule.defaults, ndim), real, real)


# -- Without Triton ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_printed_kernels_are_python(name):
    for ndim in range(3):
        if ndim == 2 and name.startswith(LOOPED):
            with pytest.raises(Untraceable, match="row or column"):
                printed(name, ndim)
        else:
            made = printed(name, ndim)
            compile(made.source(), name, "exec")
            layered = any(kind == "layer" for kind in find(name).state.values())
            assert len(made.passes) == max(len(made.stages), 1 + layered)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("t", [1, 2, 7, 1000])
def test_numbers_of_the_host_are_those_of_the_rule(name, t):
    rule = find(name)
    for hyper in (rule.defaults, other_values(rule)):
        p, g, *state = torch.rand(2 + len(rule.state), 6, dtype=F64, generator=torch.Generator().manual_seed(t))
        sizes = {"layer": 1, "column": 1}
        state = [
            x[: sizes.get(kind, 6)].reshape(() if kind == "layer" else -1)
            for x, kind in zip(state, rule.state.values(), strict=True)
        ]
        made = printed(name, 1, hyper)
        space: dict[str, Any] = {}
        exec(made.host(), space)
        _, h = compiled._family(rule, hyper)
        numbers = torch.tensor(space["numbers"](h, t, 6, 6), dtype=F64)
        known: dict[Node, Any] = dict(zip(made.numbers, numbers, strict=True))
        known |= dict(zip(made.graph.inputs, (p, g, *state), strict=True))
        expected = rule(p, g, t, *state, **hyper)
        for place, y in zip((0, *range(2, len(made.graph.inputs))), expected, strict=True):
            x = evaluate(made.graph.outputs[place], known)
            # A centred variance of numbers that are no averages may be negative, and its root NaN.
            torch.testing.assert_close(x.expand(y.shape), y, rtol=1e-12, atol=1e-15, equal_nan=True)


def evaluate(node: Node, known: dict[Node, Any]) -> Any:
    """The value of a symbol, by torch, from the numbers and the inputs."""
    if node.op == "const":
        return torch.tensor(node.args[0], dtype=F64)
    if node not in known:
        known[node] = OPERATIONS[node.op](*(evaluate(arg, known) for arg in node.args))
    return known[node]


OPERATIONS: dict[str, Any] = {
    **{
        "+": torch.add,
        "-": torch.sub,
        "*": torch.mul,
        "/": torch.div,
        "==": torch.eq,
        "|": lambda a, b: a.bool() | b.bool(),
    },
    **{"max": torch.maximum, "min": torch.minimum, "sqrt": torch.sqrt, "log": torch.log, "sum": torch.sum},
    **{"norm": torch.linalg.vector_norm, "where": lambda condition, a, b: torch.where(condition.bool(), a, b)},
}


def test_only_gpu_tensors_bring_triton_in():
    code = "import sys, torch; from stepsize import optim; p = torch.nn.Parameter(torch.ones(3)); p.grad = p.detach();"
    code += "optim.Adam([p], engine='compiled').step(); assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_triton_there_is_one_warning_and_the_loop(monkeypatch):
    monkeypatch.setattr(compiled, "_warned", False)
    monkeypatch.setattr(compiled_cuda, "DEVICE", "cpu")
    monkeypatch.setattr(compiled_cuda, "available", lambda: False)
    compiled_cuda.kernel.cache_clear()
    rule = find("novograd")
    with pytest.warns(RuntimeWarning, match="no Triton: the engine is 'loop'") as caught:
        found = run(compiled_cuda, rule, rule.defaults, F32, 3)
    compiled_cuda.kernel.cache_clear()
    expected = run(loop, rule, rule.defaults, F32, 3)
    assert len(caught) == 1 and all(map(torch.equal, itertools.chain(*found), itertools.chain(*expected)))


# -- In Triton's interpreter ---------------------------------------------------------------------------------------


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("check", ["rules", "spoiled", "halves", "layouts", "optimizers", "failures"])
def test_interpreted_kernels_do_what_the_loop_does(check):
    in_process(check, TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.slow
def test_kernels_compile_for_a_gpu(tmp_path):
    in_process("compile", TRITON_CACHE_DIR=str(tmp_path))


def in_process(check: str, **environment: str) -> None:
    command = [sys.executable, __file__, check]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> None:
    for name in NAMES:
        rule = find(name)
        for hyper, dtype in ((rule.defaults, F64), (other_values(rule), F32), (rule.defaults, F32)):
            expected = run(loop, rule, hyper, dtype, 3, SHAPES)
            with looped() as left:
                found = run(compiled_cuda, rule, hyper, dtype, 3, SHAPES)
            matrices = [shape for shape in SHAPES if len(shape) > 1]
            assert left == (matrices * 3 if name.startswith(LOOPED) else []), (name, left)
            for one, other in zip(found, expected, strict=True):
                assert_close(one, other, TOLERANCE[dtype])


def spoiled() -> None:
    """A gradient that is no number, or too large, spoils what it spoils in the loop."""
    for name, value in itertools.product(SPOILED, (torch.nan, torch.inf, -torch.inf, 1e30)):
        rule, kinds = find(name), []
        for engine in (loop, compiled_cuda):
            params, states = [torch.full((70,), 0.5), torch.full((3, 4), 0.5)], [{}, {}]
            for t in range(1, 4):
                grads = [torch.linspace(-0.3, 0.4, p.numel()).reshape(p.shape) for p in params]
                for g in grads if t == 2 else ():
                    g.view(-1)[-1] = value
                engine.step(rule, params, grads, states, rule.defaults)
            found = [*params, *(state[key] for state in states for key in rule.state)]
            kinds.append([(x.isnan().tolist(), (x == torch.inf).tolist(), (x == -torch.inf).tolist()) for x in found])
        assert kinds[0] == kinds[1], (name, value)


SPOILED = (
    "adam",
    "amsgrad",
    "arsg",
    "adabound",
    "novograd",
    "novograd:apex",
    "lambc",
    "layer_lr",
    "rmsprop:centered",
)


def halves() -> None:
    for cls, dtype in itertools.product((optim.NovoGrad, optim.Adam, optim.LAMB), (torch.bfloat16, torch.float16)):
        fast, slow = cls(parameters(dtype), engine="compiled"), cls(parameters(dtype), engine="loop")
        with looped() as left:
            train(fast, times=range(1, 6))
        assert not left
        train(slow, times=range(1, 6))
        for x, y in zip(tensors(fast), tensors(slow), strict=True):
            ulps = 4 * torch.finfo(dtype).eps if x.dtype == dtype else 1e-3
            torch.testing.assert_close(x, y, rtol=ulps, atol=ulps)


def layouts() -> None:
    """Channels last is read as it lies; addresses off 16 bytes; a transposed matrix is left to the loop."""
    rule, made = find("novograd"), []
    for engine in (loop, compiled_cuda):
        base = torch.linspace(-1, 1, 72)
        params = [
            base.reshape(2, 4, 3, 3).to(memory_format=torch.channels_last),
            base.clone()[1:],
            base.reshape(8, 9).t(),
        ]
        states: list[dict[str, Any]] = [{}, {}, {}]
        with looped() as left:
            for t in (1, 2, 3):
                grads = [(0.1 * t * p.cos()).detach() for p in params]
                engine.step(rule, params, grads, states, rule.defaults)
        assert engine is loop or left == [(9, 8)] * 3, left
        made.append([*params, *(x for state in states for x in state.values())])
    assert_close(made[1], made[0], TOLERANCE[F32])


def optimizers() -> None:
    """Memory that moves, steps that differ, groups, tensors as rates, and the same bits again."""
    for cls in (optim.NovoGrad, optim.Adam, optim.NAdam, optim.SGD):
        made = [cls(parameters(), lr=torch.tensor(0.1), engine=how) for how in ("loop", "compiled", "compiled")]
        for t in range(1, 11):
            for optimizer in made:
                moved(optimizer, t)
                train(optimizer, times=[t])
                if t == 9:
                    optimizer.param_groups[0]["params"][1].grad = None
                    optimizer.step()
        assert_close(tensors(made[1]), tensors(made[0]), 1e-12)
        assert all(map(torch.equal, tensors(made[1]), tensors(made[2])))
    known, rule = len(compiled_cuda._kernels), find("adam")
    for lr in (0.5, 1):
        run(compiled_cuda, rule, {**rule.defaults, "lr": lr}, F64, 2, ((11, 3), (2, 2, 2, 2, 2)))
    assert len(compiled_cuda._kernels) == known


def failures() -> None:
    """Numbers that Python cannot compute, and a Triton that does not work, leave all of a step to the loop."""
    zero = Rule("zero", lambda p, g, t, *, lr=0.0: (p - g / lr,), state={}, paper="", year=0, equation="")
    p = torch.ones(3)
    compiled_cuda.step(zero, [p], [torch.ones(3)], [{}], {"lr": 0.0})
    assert p.tolist() == [-torch.inf] * 3
    rule, plans = find("novograd"), {}
    one, other = ([torch.ones(3), torch.ones(2, 2)] for _ in range(2))
    states: list[list[dict[str, Any]]] = [[{}, {}], [{}, {}]]
    for t in range(4):
        grads = [torch.full_like(p, 0.1 + t) for p in one]
        with looped() as left:
            compiled_cuda.step(rule, one, grads, states[0], rule.defaults, plans)
        assert left == ([] if t < 2 else [(3,), (2, 2)])
        loop.step(rule, other, grads, states[1], rule.defaults)
        if t == 1:
            (plan,) = plans.values()
            (work,) = plan.works.values()
            work.kernel.passes = [None]
    found, expected = (
        [*ps, *(x for state in s for x in state.values())] for ps, s in zip((one, other), states, strict=True)
    )
    assert_close(found, expected, TOLERANCE[F32])


def compile_() -> None:
    """For the machine code of one GPU, aligned and not, without a GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for name, real, stored in COMPILED:
        made = Printer(trace(find(name), find(name).defaults, 2), real, stored)
        module = compiled_cuda.load(made.source())
        types = {"table": "*i64", "owners": "*i32", "sums": "*fp64", "olds": f"*fp{real[-2:]}", "aligned": "constexpr"}
        even = {(i,): [["tt.divisibility", 16]] for i in range(4)}
        for which, aligned in itertools.product(made.passes, (True, False)):
            source = ASTSource(module[which], types, {(4,): aligned}, even)
            options = {"num_warps": 8, "enable_fp_fusion": False}
            ptx = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options).asm["ptx"]
            moves = made.stages[-1].stores and len(made.passes) == len(made.stages)
            assert not moves or aligned == ("ld.global.v" in ptx), (name, which)


COMPILED = [
    *((name, "float32", "float32") for name in ("adam", "novograd", "nadam", "adabound", "lamb", "layer_lr")),
    *(("novograd", "float64", "float64"), ("adam", "float32", "bfloat16"), ("lamb", "float32", "float16")),
]


@contextmanager
def looped() -> Iterator[list[Any]]:
    """The shapes of what the loop has moved meanwhile."""
    shapes: list[Any] = []
    step = loop.step
    loop.step = lambda rule, params, *rest: (shapes.extend(tuple(p.shape) for p in params), step(rule, params, *rest))
    try:
        yield shapes
    finally:
        loop.step = step


if __name__ == "__main__":
    if sys.argv[1] != "compile":
        for module in (print_triton, compiled_cuda):
            module.BLOCK, module.PIECES = BLOCK, PIECES
        compiled_cuda.DEVICE = "cpu"
        compiled.step = compiled_cuda.step
    checks = (rules, spoiled, halves, layouts, optimizers, failures, compile_)
    {check.__name__.strip("_"): check for check in checks}[sys.argv[1]]()
