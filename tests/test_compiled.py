"""The compiled engine: equal to the loop for every rule and variant, and used only where it may be."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stepsize.engines
import torch
from stepsize import optim
from stepsize.engines import compiled, loop
from stepsize.engines.print_c import BLOCK, PARALLEL
from stepsize.rules import RULES, Rule, find
from test_optimizers import CONFIGURATIONS, parameters, same, saved, tensors, train
from torch import Tensor
from torch.nn import Parameter

F32, F64 = torch.float32, torch.float64
NAMES = [
    *RULES,
    *(f"{name}:{d.name}" for name, rule in RULES.items() for d in rule.deviations.values() if d.kind == "library"),
]
# A matrix and a vector of more than one piece, and all ranks with and without dimensions of one.
SHAPES = ((), (1,), (7,), (5, 6), (1, 9), (9, 1), (2, 3, 4, 5), (130, 140), (BLOCK + 7,))
each_rule = pytest.mark.parametrize("name", NAMES)

# Relative to the largest number of a tensor. In float32 a step rounds a few times by 6e-8, torch's root is off by a
# bit of its own, and 20 steps and differences such as the centred variance's make some ten times that of it.
TOLERANCE = {F32: 5e-6, F64: 1e-12}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """As in a process that has compiled nothing yet, for a user who has compiled nothing yet."""
    monkeypatch.setattr(compiled, "_families", {})
    monkeypatch.setattr(compiled, "_warned", False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled.load.cache_clear()
    compiled.compiler.cache_clear()
    yield tmp_path
    compiled.compiler.cache_clear()


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch, fresh: Path) -> list[Path]:
    done: list[Path] = []
    compile_ = compiled._compile
    monkeypatch.setattr(compiled, "_compile", lambda cc, text, path: (done.append(path), compile_(cc, text, path)))
    return done


@pytest.fixture
def no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the loop was used")

    monkeypatch.setattr(loop, "step", refuse)


def other_values(rule: Rule) -> dict[str, Any]:
    """Hyper-parameters that are not the defaults, with every switch on."""

    def other(name: str, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(other(name, x) for x in value)
        if isinstance(value, bool) or value is None:
            return True if value is not None else {"base_lr": 0.04, "layer_lr_clip": 0.02}[name]
        return 0.03 if name in ("weight_decay", "dampening") else 0.9 * value

    return {name: other(name, value) for name, value in rule.defaults.items()}


def run(
    engine: Any, rule: Rule, hyper: dict[str, Any], dtype: torch.dtype, steps: int = 20, shapes: Any = SHAPES
) -> list[list[Tensor]]:
    """Parameter and states of each tensor after some steps; gradients grow and shrink from step to step."""
    generator = torch.Generator().manual_seed(0)

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=F64).to(dtype)

    params = [draw(shape) for shape in shapes]
    states: list[dict[str, Tensor]] = [{} for _ in params]
    for t in range(steps):
        grads = [0.1 * (1 + t % 3) * draw(shape) for shape in shapes]
        engine.step(rule, params, grads, states, hyper)
    return [[p, *(state[name] for name in ("step", *rule.state))] for p, state in zip(params, states, strict=True)]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    assert [(x.dtype, x.shape) for x in found] == [(x.dtype, x.shape) for x in expected]
    for x, y in zip((x.detach() for x in found), (y.detach() for y in expected), strict=True):
        assert x.isfinite().all() and y.isfinite().all()
        if y.numel():
            assert float((x - y).abs().max()) <= tolerance * max(float(y.abs().max()), 1e-30)


# -- Equal to the loop ---------------------------------------------------------------------------------------------


@each_rule
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_twenty_steps_are_those_of_the_loop(name, dtype, recwarn):
    rule = find(name)
    for hyper in (rule.defaults, other_values(rule)):
        expected = run(loop, rule, hyper, dtype)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "step", None)
            found = run(compiled, rule, hyper, dtype)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, TOLERANCE[dtype])
    assert not recwarn.list


@each_rule
@pytest.mark.parametrize("spoiled", [torch.nan, torch.inf, -torch.inf, 1e30, 1e-30])
def test_spoiled_gradient_spoils_what_it_spoils_in_the_loop(name, spoiled):
    rule, shapes = find(name), ((6,), (3, 4), ())
    results = []
    for engine in (loop, compiled):
        params = [torch.full(shape, 0.5) for shape in shapes]
        states: list[dict[str, Tensor]] = [{} for _ in params]
        kinds = []
        for t in range(1, 8):
            grads = [torch.linspace(-0.3, 0.4, p.numel()).reshape(p.shape) for p in params]
            for g in grads if t == 2 else ():
                g.view(-1)[0] = spoiled
            engine.step(rule, params, grads, states, rule.defaults)
            for x in (*params, *(state[key] for state in states for key in rule.state)):
                kinds.append((x.isnan().tolist(), (x == torch.inf).tolist(), (x == -torch.inf).tolist()))
        results.append(kinds)
    assert results[0] == results[1]


@pytest.mark.parametrize(("cls", "options"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_optimizers_take_the_same_path_with_either_engine(cls, options):
    for more in ({"maximize": True}, {"lr": torch.tensor(0.0625, dtype=F64)}, {"lr": torch.tensor([0.0625])}):
        made = [cls(parameters(), **options, **more, engine=engine) for engine in ("loop", "compiled")]
        train(*made, times=range(1, 6))
        assert_close(tensors(made[1]), tensors(made[0]), 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("cls", [optim.NovoGrad, optim.Adam, optim.Adafactor, optim.LAMB])
def test_half_precision_is_computed_in_float32_as_in_the_loop(cls, dtype, no_loop, monkeypatch):
    fast = cls(parameters(dtype), engine="compiled")
    train(fast, times=range(1, 11))
    monkeypatch.undo()
    slow = cls(parameters(dtype), engine="loop")
    train(slow, times=range(1, 11))
    for x, y in zip(tensors(fast), tensors(slow), strict=True):
        # A rounding on the other side of a half is one unit of the last place; what follows sees another parameter.
        ulps = 4 * torch.finfo(dtype).eps if x.dtype == dtype else 1e-3
        torch.testing.assert_close(x, y, rtol=ulps, atol=ulps)


@pytest.mark.parametrize("name", ["adam", "novograd", "nd_adam", "adafactor", "lamb"])
def test_layout_in_memory_is_irrelevant(name):
    rule = find(name)
    made = []
    for engine in (loop, compiled):
        params = [torch.arange(12.0).reshape(3, 4).t(), torch.ones(2, 4, 3, 3).to(memory_format=torch.channels_last)]
        states: list[dict[str, Tensor]] = [{}, {}]
        for t in (1, 2, 3):
            grads = [torch.full(p.shape[::-1], 0.1 * t).permute(*reversed(range(p.ndim))) for p in params]
            engine.step(rule, params, grads, states, rule.defaults)
        assert not any(p.is_contiguous() for p in params)
        made.append([*params, *(state[key] for state in states for key in rule.state)])
    assert_close(made[1], made[0], TOLERANCE[F32])


def test_empty_tensors_and_betas_in_tensors_are_left_to_the_loop():
    empties = ((0,), (3, 0), (4,))
    for name in ("novograd", "adafactor", "adam"):
        one, other = (run(engine, find(name), find(name).defaults, F32, 3, empties) for engine in (loop, compiled))
        for x, y in zip(one, other, strict=True):
            assert_close(x, y, TOLERANCE[F32])
    betas = (torch.tensor(0.9), torch.tensor(0.99))
    made = [optim.Adam(parameters(), betas=betas, engine=engine) for engine in ("loop", "compiled")]
    train(*made)
    assert same(tensors(made[0]), tensors(made[1]))


def test_tensors_in_two_places_move_as_in_the_loop():
    rule, made = find("novograd"), []
    for engine in (loop, compiled):
        p, q, r = (torch.linspace(n, 1, 5) for n in (0, 2, 3))
        states: list[dict[str, Tensor]] = [{}, {}, {}]
        for _ in range(3):
            engine.step(rule, [p, q, r, r], [q, p, r, p], [*states, states[2]], rule.defaults)
        made.append([p, q, r, *(x for state in states for x in state.values())])
    assert same(made[0], made[1]) and [float(state["step"]) for state in states] == [3, 3, 6]


# -- Memory that moves between steps -------------------------------------------------------------------------------


def moved(optimizer: Any, t: int) -> None:
    """What may happen to parameters, gradients and state between two steps."""
    params = optimizer.param_groups[0]["params"]
    if t == 3:
        params[0].data = params[0].data.clone()
    if t == 4:
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    if t == 5:
        params[0].data = params[0].data.t().contiguous().t()
    if t == 6:
        state = optimizer.state[params[1]]
        state.update({name: x.clone() for name, x in state.items()})
    if t == 7:
        optimizer.state.clear()
    if t == 8:
        optimizer.add_param_group({"params": [Parameter(torch.ones(3, dtype=F64))]})


@pytest.mark.parametrize("cls", [optim.NovoGrad, optim.Adam, optim.Adafactor, optim.SGD])
def test_moved_memory_is_found_again(cls):
    made = [cls(parameters(), lr=0.1, engine=engine) for engine in ("loop", "compiled")]
    for t in range(1, 11):
        for optimizer in made:
            moved(optimizer, t)
            train(optimizer, times=[t])
            if t == 9:
                optimizer.param_groups[0]["params"][1].grad = None
                optimizer.step()
    assert_close(tensors(made[1]), tensors(made[0]), 1e-12)


@pytest.mark.parametrize("cls", [optim.NovoGrad, optim.Adam, optim.SWATS, optim.Ranger])
def test_resumed_copied_and_pickled_optimizers_go_on_with_the_same_bits(cls):
    straight, stopped = (cls(parameters(), lr=0.1, engine="compiled") for _ in range(2))
    train(straight, times=range(1, 7))
    train(stopped, times=range(1, 4))
    resumed = cls([Parameter(p.detach().clone()) for group in stopped.param_groups for p in group["params"]])
    resumed.load_state_dict(saved(stopped))
    twin = copy.deepcopy(stopped)
    train(resumed, twin, times=range(4, 7))
    assert same(tensors(resumed), tensors(straight)) and same(tensors(twin), tensors(straight))


def test_backward_through_a_stepped_parameter_is_refused():
    p = Parameter(torch.ones(3))
    loss = (p**3).sum()
    p.grad = torch.ones(3)
    optim.NovoGrad([p], engine="compiled").step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_state_of_another_size_is_never_written_to():
    p = Parameter(torch.ones(1000))
    p.grad = torch.ones(1000)
    optimizer = optim.SGD([p], momentum=0.9, engine="compiled")
    optimizer.step()
    optimizer.state[p]["momentum_buffer"] = torch.zeros(3)
    with pytest.raises(RuntimeError, match="size of tensor"):
        optimizer.step()


# -- Threads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adam", "novograd", "lamb", "nd_adam", "adafactor"])
def test_number_of_threads_changes_no_bit(name):
    shapes = ((PARALLEL + 5,), (300, 700), (3, 5), (17, 20000))
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append([x for xs in run(compiled, find(name), find(name).defaults, F32, 3, shapes) for x in xs])
    finally:
        torch.set_num_threads(threads)
    assert same(results[0], results[1]) and same(results[0], results[2])


# -- Compiling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adam", "novograd", "lamb"])
def test_new_shapes_rates_and_steps_compile_nothing_new(name, compilations):
    rule = find(name)
    for lr in (0.1, 0.01, 1, torch.tensor(0.5)):
        run(compiled, rule, {**rule.defaults, "lr": lr}, F32, 3)
    run(compiled, rule, rule.defaults, F32, 2, ((11, 3), (2, 2, 2, 2, 2)))
    assert len(compilations) == 1


def test_rules_of_one_formula_and_ranks_of_one_form_share_a_kernel(compilations):
    for name in ("novograd", "novograd:timm"):
        run(compiled, find(name), find(name).defaults, F32, 1)
    assert len(compilations) == 1
    run(compiled, find("adafactor"), find("adafactor").defaults, F32, 1)
    assert len(compilations) == 1 + 3  # a number, a vector, and all else


def test_second_process_takes_what_the_first_has_compiled(fresh):
    code = """
        import sys, torch
        from stepsize import optim
        from stepsize.engines import compiled
        if sys.argv[1] == "second":
            del compiled._compile
        p = torch.nn.Parameter(torch.ones(3))
        p.grad = torch.ones(3)
        optim.NovoGrad([p], engine="compiled").step()
        assert len(compiled._families) == 1 and all(compiled._families.values())
    """
    for which in ("first", "second"):
        command = [sys.executable, "-W", "error::RuntimeWarning", "-c", textwrap.dedent(code), which]
        subprocess.run(command, check=True, env={**os.environ, "XDG_CACHE_HOME": str(fresh)})
    (built,) = (fresh / "stepsize").iterdir()
    assert built.suffix == ".so" and (fresh / "stepsize").stat().st_mode & 0o777 == 0o700


def test_folder_that_others_can_write_to_is_not_trusted(fresh, compilations):
    (fresh / "stepsize").mkdir()
    (fresh / "stepsize").chmod(0o777)
    run(compiled, find("sgd"), find("sgd").defaults, F32, 1, ((3,),))
    (path,) = compilations
    assert fresh not in path.parents and path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("cc", ["/no/such/compiler", "false"])
@pytest.mark.parametrize("engine", ["compiled", "auto"])
def test_without_a_working_compiler_there_is_one_warning_and_the_loop(cc, engine, fresh, monkeypatch):
    monkeypatch.setenv("CC", cc)
    monkeypatch.setattr(stepsize.engines, "LARGE", 1)
    made = [optim.NovoGrad(parameters(), engine=name) for name in ("loop", engine)]
    with pytest.warns(RuntimeWarning, match="C compiler.*'loop' and not 'compiled'") as caught:
        train(*made)
    assert len(caught) == 1 and same(tensors(made[0]), tensors(made[1]))
    assert f"engine: {engine} (loop)\n" in repr(made[1])


def test_auto_without_a_compiler_stays_with_the_loop_for_small_tensors(fresh, monkeypatch, recwarn):
    monkeypatch.setenv("CC", "/no/such/compiler")
    optimizer = optim.NovoGrad(parameters())
    train(optimizer, times=range(1, 103))
    assert "engine: auto (loop)\n" in repr(optimizer) and not recwarn.list


def test_rule_that_branches_on_a_value_is_left_to_the_loop(fresh):
    def branching(p, g, t, *, lr=0.1):
        return (p - lr * g if g.sum() > 0 else p,)

    rule = Rule("branching", branching, state={}, paper="", year=0, equation="")
    p = torch.ones(3)
    with pytest.warns(RuntimeWarning, match="branching cannot be compiled .*a branch on a value"):
        compiled.step(rule, [p], [torch.ones(3)], [{}], {"lr": 0.5})
    assert p.tolist() == [0.5] * 3


# -- Choosing ------------------------------------------------------------------------------------------------------


def test_auto_begins_with_the_loop_and_compiles_after_100_steps():
    optimizer, slow = (optim.NovoGrad(parameters(), engine=engine) for engine in ("auto", "loop"))
    assert "engine: auto (loop)\n" in repr(optimizer) and "engine: loop\n" in repr(slow)
    train(optimizer, slow, times=range(1, 101))
    assert same(tensors(optimizer), tensors(slow))
    assert "engine: auto (compiled)\n" in repr(optimizer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "step", None)
        train(optimizer, times=[101])
    train(slow, times=[101])
    assert_close(tensors(optimizer), tensors(slow), 1e-14)


def test_auto_compiles_at_once_for_many_numbers(no_loop):
    p = Parameter(torch.zeros(1024, 1024))
    p.grad = torch.ones_like(p)
    optimizer = optim.Adam([p])
    assert "engine: auto (compiled)\n" in repr(optimizer)
    optimizer.step()


def test_printing_tells_the_engine_of_each_group():
    groups = [{"params": [Parameter(torch.zeros(n))], "engine": engine} for n, engine in ENGINES_SHOWN]
    shown = re.findall("engine: (.*)", repr(optim.NovoGrad(groups)))
    assert shown == ["loop", "compiled", "auto (compiled)", "auto (loop)", "compiled (loop)"]


ENGINES_SHOWN = [(3, "loop"), (3, "compiled"), (2**20, "auto"), (3, "auto"), (0, "compiled")]
