"""Every rule as a ``torch.optim.Optimizer``: same arguments, same state dict, same contract."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from typing import Any

import torch
from torch.optim import Optimizer

from . import engines
from .engines import loop
from .engines.compiled import REALS
from .rules import RULES, Rule
from .rules.base import suggestion


def _without_compiler(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of torch's, which imports torch's compiler, a second or more, at its first call; here it does not.

    Where that compiler is loaded already, it is told to leave the method alone, as torch has it.
    """
    plain = inspect.unwrap(method)

    @wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        return (method if "torch._dynamo" in sys.modules else plain)(*args, **kwargs)

    return call


class RuleOptimizer(Optimizer):
    """What all optimizers of this module share; ``rule_name`` says which rule moves the parameters.

    ``params`` takes tensors, groups or named parameters. The hyper-parameters are the rule's own.
    ``maximize`` walks up. ``variant`` names a deviation of kind ``"library"``, such as ``"torch"``;
    ``None`` is the paper's form. ``engine`` is ``"loop"`` (the rule as it is written, one tensor after
    another), ``"compiled"`` (machine code made of the rule, by the system's C compiler, on a GPU by Triton:
    equal but for rounding, and fast) or ``"auto"``: compiled in groups of 2^20 numbers or more, and in
    smaller ones from step 101 on; before that a compiler costs more than it saves. Printing tells which is
    in use. All of these live in the parameter groups, so that groups may differ and ``state_dict``,
    ``deepcopy`` and pickling keep them.

    State is made at a parameter's first step, and kept in float32 for half-precision parameters.
    Gradients are never changed. Raises ``ValueError`` for a value out of range, ``RuntimeError``
    for sparse, complex or integer gradients. A gradient that is NaN or infinite goes through the
    rule as it is: see the rule's docstring for what it spoils.
    """

    rule_name: str

    zero_grad = _without_compiler(Optimizer.zero_grad)
    state_dict = _without_compiler(Optimizer.state_dict)

    def __init__(self, params: Iterable[Any], *positional: Any, **keyword: Any) -> None:
        defaults = {name: p.default for name, p in inspect.signature(type(self)).parameters.items() if name != "params"}
        if keyword.get("variant") is not None:
            chosen = self.rule_of({**defaults, **keyword})
            paper = self.rule_of({**defaults, **keyword, "variant": None})
            for name in keyword.keys() & (paper.defaults.keys() - chosen.defaults.keys()):
                raise TypeError(f"{type(self).__name__} has no {name!r} with variant={keyword['variant']!r}")
            # What is not given has the variant's own default: apex's betas are not the paper's.
            defaults |= chosen.defaults
        for name in keyword:
            if name not in defaults:
                raise TypeError(f"{type(self).__name__} has no argument {name!r}{suggestion(name, defaults)}")
        given = dict(zip(defaults, positional, strict=False))
        twice = sorted(set(given) & set(keyword))
        if twice or len(positional) > len(defaults):
            what = f"{twice[0]!r} twice" if twice else f"{len(positional)} positional arguments"
            raise TypeError(f"{type(self).__name__} got {what}; it takes {', '.join(['params', *defaults])}")
        super().__init__(params, {**defaults, **given, **keyword})

    def rule_of(self, group: dict[str, Any]) -> Rule:
        """The rule that moves the parameters of ``group``."""
        return self._variant(RULES[self.rule_name], group["variant"])

    @staticmethod
    def _variant(rule: Rule, variant: str | None) -> Rule:
        if variant is None:
            return rule
        known = [d.name for d in rule.deviations.values() if d.kind == "library"]
        if variant not in known:
            raise ValueError(f"{rule.name} has no variant {variant!r}{suggestion(str(variant), known)}")
        return rule.deviations[variant].rule

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group at any time; its values are checked as the constructor's are."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        group = {**self.defaults, **param_group}
        rule = self.rule_of(group)
        for name in rule.defaults.keys() - group.keys():
            group[name] = param_group[name] = rule.defaults[name]
        self.check(group)
        if "base_lr" in group and group["base_lr"] is None and group["lr"] > 0:
            # In the group, so that new groups, copies and checkpoints keep it.
            param_group["base_lr"] = float(group["lr"])
        _add_param_group(self, param_group)

    def check(self, group: dict[str, Any]) -> None:
        """Raise ``ValueError`` in one sentence if a value of ``group`` is out of range."""
        if isinstance(group["lr"], torch.Tensor) and group["lr"].numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if group["engine"] not in engines.ENGINES:
            raise ValueError(f"engine must be one of {', '.join(map(repr, engines.ENGINES))}, got {group['engine']!r}")
        rule = self.rule_of(group)
        rule.validate({name: group[name] for name in rule.defaults})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient; return what ``closure`` returns, called with gradients on."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rule = self.rule_of(group)
            params, grads = gradients(group)
            hyper = {name: group[name] for name in rule.defaults}
            states = [self.state[p] for p in params]
            engines.step(group["engine"], rule, params, grads, states, hyper, self.__dict__.setdefault("_plans", {}))
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but float32 state of half-precision parameters stays float32."""
        with float32_state(self):
            _load_state_dict(self, state_dict)

    def __repr__(self) -> str:
        before, *groups = super().__repr__().split("    engine: ")
        for group, text in zip(self.param_groups, groups, strict=True):
            engine, rule = group["engine"], self.rule_of(group)
            hyper = {name: group[name] for name in rule.defaults}
            states = [self.state.get(p, {}) for p in group["params"]]
            choice = engines.choice(engine, rule, group["params"], states, hyper)
            shown = engine if engine == choice else f"{engine} ({choice})"
            before += f"    engine: {shown}{text.removeprefix(engine)}"
        return before

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name in self.defaults.keys() - {"differentiable"}:  # A state dict of an older version may lack some.
                group.setdefault(name, self.defaults[name])


_add_param_group = _without_compiler(Optimizer.add_param_group)
_load_state_dict = _without_compiler(Optimizer.load_state_dict)


def _signature(hyper: dict[str, Any]) -> inspect.Signature:
    either, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    options = {"maximize": False, "variant": None, "engine": "auto"}
    return inspect.Signature(
        [
            inspect.Parameter("params", either),
            *(inspect.Parameter(name, either, default=value) for name, value in hyper.items()),
            *(inspect.Parameter(name, keyword, default=value) for name, value in options.items()),
        ]
    )


class SGD(RuleOptimizer):
    """Stochastic gradient descent; with ``momentum`` it is the rule ``sgdm``, with ``nesterov`` too, ``nag``.

    Defaults: ``lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False``. The velocity holds
    the rate, as in Sutskever et al. 2013; ``variant="torch"`` keeps the rate outside, as ``torch.optim.SGD``.
    """

    rule_name = "sgd"

    __signature__ = _signature({"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        RULES["sgdm"].validate({name: group[name] for name in RULES["sgdm"].defaults})  # also while momentum is 0

    def rule_of(self, group: dict[str, Any]) -> Rule:
        if group["nesterov"]:
            if (isinstance(group["momentum"], (int, float)) and group["momentum"] <= 0) or group["dampening"] != 0:
                raise ValueError(
                    f"nesterov needs momentum above 0 and dampening 0, "
                    f"got momentum={group['momentum']!r}, dampening={group['dampening']!r}"
                )
            return self._variant(RULES["nag"], group["variant"])
        if isinstance(group["momentum"], (int, float)) and group["momentum"] == 0:
            if group["variant"] in RULES["sgd"].deviations:
                return self._variant(RULES["sgd"], group["variant"])
            self._variant(RULES["sgdm"], group["variant"])  # refuses an unknown variant; without momentum all are one
            return RULES["sgd"]
        return self._variant(RULES["sgdm"], group["variant"])


def gradients(group: dict[str, Any]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The parameters of ``group`` that have a gradient, and the gradients, with the sign of ``maximize``."""
    pairs = [(p, g) for p in group["params"] if (g := p.grad) is not None]
    for _, g in pairs:
        if g.layout is not torch.strided or g.dtype not in REALS:
            _refuse_gradient(g)
    return [p for p, _ in pairs], [-g if group["maximize"] else g for _, g in pairs]


@contextmanager
def float32_state(optimizer: Optimizer) -> Iterator[None]:
    """While it lasts, ``load_state_dict`` does not cast the state of half-precision parameters: hooks see it so too."""
    saved: dict[str, Any] = {}

    def widen(_: Optimizer) -> None:
        saved_ids = chain.from_iterable(group["params"] for group in saved["param_groups"])
        params = chain.from_iterable(group["params"] for group in optimizer.param_groups)
        for saved_id, p in zip(saved_ids, params, strict=True):
            for name, value in saved["state"].get(saved_id, {}).items() if p.dtype in loop.HALF else ():
                # An optimizer that is not ours, inside a wrapper, wants its state in the dtype that it had.
                ours = isinstance(value, torch.Tensor) and isinstance(optimizer, RuleOptimizer)
                if (ours and value.is_floating_point()) or getattr(value, "dtype", None) == torch.float32:
                    optimizer.state[p][name] = value.to(optimizer.state[p][name].device, torch.float32, copy=True)

    # Last before loading, to see what the user's hooks made of it, and first after it.
    before = optimizer.register_load_state_dict_pre_hook(lambda _, state_dict: saved.update(state_dict))
    after = optimizer.register_load_state_dict_post_hook(widen, prepend=True)
    try:
        yield
    finally:
        before.remove()
        after.remove()


class RMSprop(RuleOptimizer):
    """RMSProp; ``centered`` takes the square of the average gradient off the average of squares.

    Defaults: ``lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, centered=False``. The two forms differ in their state,
    so a group keeps the one it began with. Plain, ``variant=None`` is torch's form too; centred, it has ``eps`` inside
    the root, as Graves 2013, and ``variant="torch"`` outside.
    """

    rule_name = "rmsprop"

    __signature__ = _signature({**RULES["rmsprop"].defaults, "centered": False})

    def rule_of(self, group: dict[str, Any]) -> Rule:
        variant = group["variant"]
        if group["centered"]:
            variant = "centered" if variant is None else f"centered-{variant}"
        elif variant == "torch":
            variant = None
        return self._variant(RULES["rmsprop"], variant)


def _refuse_gradient(grad: torch.Tensor) -> None:
    if grad.layout != torch.strided:
        raise RuntimeError(
            "sparse gradients are not supported: use torch.optim.SparseAdam, or an embedding with sparse=False"
        )
    if grad.is_complex():
        raise RuntimeError("complex parameters are not supported: optimize torch.view_as_real(p) instead")
    if not grad.is_floating_point():
        raise RuntimeError(f"gradients must be floating point, got {grad.dtype}")


def _face(class_name: str, rule: Rule) -> type[RuleOptimizer]:
    """The optimizer class of a rule, with the rule's arguments in its signature and the rule's docstring."""
    doc = f"{rule.__doc__}\n\n{rule.paper}."
    body = {"rule_name": rule.name, "__doc__": doc, "__module__": __name__, "__signature__": _signature(rule.defaults)}
    face: type[RuleOptimizer] = type(class_name, (RuleOptimizer,), body)
    return face


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "sgdm": SGD, "rmsprop": RMSprop}
for _rule in RULES.values():
    if _rule.optimizer is not None:
        OPTIMIZERS[_rule.name] = globals()[_rule.optimizer] = _face(_rule.optimizer, _rule)

# They wrap the optimizers above.
from .wrappers.lookahead import Lookahead, Ranger  # noqa: E402
from .wrappers.swats import SWATS  # noqa: E402
from .wrappers.weight_rescaling import WeightRescaling  # noqa: E402

OPTIMIZERS |= {"swats": SWATS, "lookahead": Lookahead, "ranger": Ranger, "weight_rescaling": WeightRescaling}

__all__ = ["OPTIMIZERS", "RuleOptimizer", *sorted({face.__name__ for face in OPTIMIZERS.values()})]


def __getattr__(name: str) -> Any:
    raise AttributeError(f"stepsize.optim has no {name!r}{suggestion(name, __all__)}")
