"""From a rule to the C that does the same: run it once on symbols, order what it computed, print that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..rules.base import Rule

# What a symbol holds: a number in double, or in the tensors' dtype one value per layer, row, column or element.
KINDS = ("scalar", "layer", "row", "column", "tensor")
REDUCTIONS = ("norm", "sum")


class Untraceable(AttributeError):
    """The rule does what a symbol cannot."""


@dataclass(eq=False)
class Node:
    """One operation; ``stage`` counts the passes over memory that have to be over before it can be computed."""

    index: int
    op: str
    args: tuple[Any, ...]
    kind: str
    boolean: bool = False
    stage: int = 0

    @property
    def name(self) -> str:
        return f"v{self.index}"


@dataclass
class Graph:
    """All operations of a rule, each once and after its arguments.

    ``inputs`` are the parameter, the gradient and the states, and ``outputs`` maps the index of what is replaced
    among them to its new value.
    """

    nodes: dict[tuple[Any, ...], Node] = field(default_factory=dict)
    inputs: list[Node] = field(default_factory=list)
    outputs: dict[int, Node] = field(default_factory=dict)

    def node(self, op: str, *args: Any, kind: str | None = None, boolean: bool = False) -> Node:
        key = (op, kind, *(arg.index if isinstance(arg, Node) else repr(arg) for arg in args))
        if key not in self.nodes:
            nodes = [arg for arg in args if isinstance(arg, Node)]
            stage = max((arg.stage for arg in nodes), default=0) + (op in REDUCTIONS)
            kind = kind or _join(arg.kind for arg in nodes)
            self.nodes[key] = Node(len(self.nodes), op, args, kind, boolean, stage)
        return self.nodes[key]


class Symbol:
    """What a rule is given in place of a tensor or a number: it remembers what is done with it."""

    __mul__: Any

    def __init__(self, graph: Graph, node: Node, ndim: int = 0) -> None:
        self.graph, self.node, self.ndim = graph, node, ndim

    def make(self, op: str, *args: Any, boolean: bool = False) -> Symbol:
        given = [_lift(self.graph, arg) for arg in args]
        node = self.graph.node(op, *(arg.node for arg in given), boolean=boolean)
        return Symbol(self.graph, node, max(arg.ndim for arg in given))

    @property
    def shape(self) -> Mapping[int, Symbol]:
        """The first dimension alone: only it has a symbol, so that one kernel serves all shapes."""
        if self.ndim == 0 or self.node.kind != "tensor":
            raise Untraceable(f"the shape of one number per {self.node.kind}")
        op = "rows" if self.ndim > 1 else "numel"
        return {0: Symbol(self.graph, self.graph.node(op, kind="scalar"))}

    def numel(self) -> Any:
        numel, rows = (Symbol(self.graph, self.graph.node(op, kind="scalar")) for op in ("numel", "rows"))
        return {"tensor": numel, "row": rows, "column": numel / rows}.get(self.node.kind, 1)

    def __bool__(self) -> bool:
        raise Untraceable("a branch on a value")

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS:
            raise Untraceable(f"no symbol for {name}")
        return partial(METHODS[name], self)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.__name__ not in METHODS:
            raise Untraceable(f"no symbol for torch.{function.__name__}")
        some = next(arg for arg in args if isinstance(arg, Symbol))
        return METHODS[function.__name__](*(_lift(some.graph, arg) for arg in args), **(kwargs or {}))

    def __pow__(self, power: Any) -> Symbol:
        if self.node.kind == "scalar" or not isinstance(power, (int, float)):
            return self.make("pow", self, power)
        # The powers that torch computes otherwise, and so exactly.
        if power in (2, 3):
            return self * self if power == 2 else self * self * self
        if abs(power) == 0.5:
            return self.make("sqrt", self) if power > 0 else 1 / self.make("sqrt", self)
        return 1 / self**-power if power in (-1, -2) else self if power == 1 else self.make("pow", self, power)

    def __rpow__(self, base: Any) -> Symbol:
        return self.make("pow", base, self)

    def __neg__(self) -> Symbol:
        return self.make("neg", self)

    def __abs__(self) -> Symbol:
        return self.make("fabs", self)

    def __truediv__(self, other: Any) -> Symbol:
        # Where many are divided by one, one division will do.
        divisor = _lift(self.graph, other)
        if self.node.kind == "tensor" and divisor.node.kind in ("scalar", "layer"):
            return self * self.make("/", 1, divisor)
        return self.make("/", self, divisor)

    def __rtruediv__(self, other: Any) -> Symbol:
        # As torch divides a number by a tensor.
        return self.make("/", other, self) if self.node.kind == "scalar" else self.make("/", 1, self) * other


def _operator(op: str, boolean: bool, swapped: bool) -> Callable[[Symbol, Any], Symbol]:
    return lambda self, other: self.make(op, *((other, self) if swapped else (self, other)), boolean=boolean)


for _names, _boolean in (("add + sub - mul *", False), ("and & or |", True)):
    for _name, _op in zip(_names.split()[::2], _names.split()[1::2], strict=True):
        setattr(Symbol, f"__{_name}__", _operator(_op, _boolean, False))
        setattr(Symbol, f"__r{_name}__", _operator(_op, _boolean, True))
for _name, _op in (("eq", "=="), ("ne", "!="), ("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">=")):
    setattr(Symbol, f"__{_name}__", _operator(_op, True, False))


def _lift(graph: Graph, value: Any) -> Symbol:
    if isinstance(value, Symbol):
        return value
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
        raise Untraceable(f"no symbol for {value!r}")
    value = value if isinstance(value, bool) else float(value)
    return Symbol(graph, graph.node("const", value, kind="scalar", boolean=isinstance(value, bool)))


def _join(kinds: Iterable[str]) -> str:
    wide = sorted({"scalar", *kinds}, key=KINDS.index)
    return "tensor" if {"row", "column"} <= set(wide) else wide[-1]


def _norm(x: Symbol) -> Symbol:
    if x.node.kind in ("scalar", "layer"):
        return abs(x)
    return Symbol(x.graph, x.graph.node("norm", x.node, kind="layer"))


def _sum(x: Symbol, dim: Any = None, keepdim: bool = False) -> Symbol:
    """The sum over all dimensions, over the first, or over all others."""
    dims = set(range(x.ndim)) if dim is None else {d % x.ndim for d in ((dim,) if isinstance(dim, int) else dim)}
    whole = dims == set(range(x.ndim))
    if not whole and (not keepdim or dims not in ({0}, set(range(1, x.ndim)))):
        raise Untraceable(f"a sum over the dimensions {dim} of {x.ndim}, keepdim={keepdim}")
    gone = {"row", "column"} if whole else {"row"} if dims == {0} else {"column"}
    left = {"tensor": {"row", "column"}, "row": {"row"}, "column": {"column"}}.get(x.node.kind, set()) - gone
    kind = "tensor" if len(left) == 2 else left.pop() if left else "layer"
    ndim = x.ndim if keepdim else 0
    if x.node.kind in (kind, "scalar"):
        return Symbol(x.graph, x.node, ndim)
    return Symbol(x.graph, x.graph.node("sum", x.node, kind=kind), ndim)


def _mean(x: Symbol, dim: Any = None, keepdim: bool = False) -> Symbol:
    total = _sum(x, dim, keepdim)
    return total / (x.numel() / total.numel())


def _clamp(x: Symbol, min: Any = None, max: Any = None) -> Symbol:
    x = x if min is None else x.make("max", x, min)
    return x if max is None else x.make("min", x, max)


METHODS: dict[str, Callable[..., Any]] = {
    "sqrt": lambda x: x**0.5,
    "abs": abs,
    "exp": lambda x: x.make("exp", x),
    "log": lambda x: x.make("log", x),
    "square": lambda x: x * x,
    "add": lambda x, other: x + other,
    "maximum": lambda x, other: x.make("max", x, other),
    "minimum": lambda x, other: x.make("min", x, other),
    "where": lambda condition, yes, no: condition.make("where", condition, yes, no),
    "clamp": _clamp,
    "sum": _sum,
    "mean": _mean,
    "linalg_vector_norm": _norm,
}


def trace(rule: Rule, hyper: Mapping[str, Any], ndim: int) -> Graph:
    """The graph of ``rule`` on tensors of ``ndim`` dimensions.

    In ``hyper`` a number stands for any number, also in a tuple; everything else is taken as it is. Raises what the
    rule raises on symbols, :class:`Untraceable` where it needs what they lack.
    """
    graph = Graph()
    numbers = iter(range(10**6))

    def symbol(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return tuple(symbol(part) for part in value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return Symbol(graph, graph.node("hyper", next(numbers), kind="scalar"))
        return value

    given = {name: symbol(value) for name, value in hyper.items()}
    # Of a vector each element is a row, and there is one column; a number is both.
    less = {0: {"row": "tensor", "column": "tensor"}, 1: {"row": "tensor", "column": "layer"}}.get(ndim, {})
    kinds = [less.get(kind, kind) for kind in ("tensor", "tensor", *rule.state.values())]
    graph.inputs = [graph.node("input", place, kind=kind) for place, kind in enumerate(kinds)]
    ndims = [0 if kind == "layer" else ndim for kind in ("tensor", "tensor", *rule.state.values())]
    p, g, *state = (Symbol(graph, node, n) for node, n in zip(graph.inputs, ndims, strict=True))
    new = rule(p, g, Symbol(graph, graph.node("t", kind="scalar")), *state, **given)  # type: ignore[arg-type]
    for place, value in zip((0, *range(2, len(kinds))), new, strict=True):
        node = _lift(graph, value).node
        if _join((node.kind, kinds[place])) != kinds[place]:
            raise Untraceable(f"a {node.kind} of values for one per {kinds[place]}")
        graph.outputs[place] = node
    return graph


class Stage:
    """What happens between two sums over elements: first with numbers, rows and columns, then one pass over elements.

    ``ready`` is computed before the pass, in order, and ``taken`` is what that needs of earlier stages; ``inside`` is
    computed in the pass for each element, from ``outside``. The pass puts ``stores`` (place -> new value) in the place
    of tensors, ``small`` are those of smaller states, stored before it; ``sums`` are made for the next stage, by the
    pass or, of rows and columns, before it. ``replaced`` are the stores of earlier stages, value -> place.
    """

    def __init__(
        self,
        number: int,
        needed: list[Node],
        stores: dict[int, Node],
        small: dict[int, Node],
        replaced: dict[Node, int],
    ) -> None:
        self.stores, self.small, self.replaced = stores, small, replaced
        self.sums = [node for node in needed if node.op in REDUCTIONS and node.stage == number + 1]
        summed = [node.args[0] for node in self.sums]
        self.inside, self.outside = _walk(
            [*stores.values(), *(node for node in summed if node.kind == "tensor")],
            lambda node: node.kind != "tensor" or node in replaced,
        )
        numbers = [node for node in self.outside if node.kind == "scalar"]
        made = [node for node in needed if node.stage == number and node.kind not in ("scalar", "tensor")]
        self.ready, self.taken = _walk(
            [*made, *numbers, *small.values(), *(node for node in summed if node.kind != "tensor")],
            lambda node: node.stage < number and node.kind != "scalar" and node.op != "input",
        )


def stages(graph: Graph) -> list[Stage]:
    """The graph in as few passes over memory as its sums allow.

    A new value replaces the old one as soon as nothing needs that any more, and is read from then on.
    """
    needed, _ = _walk(graph.outputs.values(), lambda node: False, through=True)
    last = max(node.stage for node in needed)
    new = {place: node for place, node in graph.outputs.items() if graph.inputs[place].kind == "tensor"}
    small = {place: node for place, node in graph.outputs.items() if place not in new}
    when = {place: node.stage if node.kind == "tensor" else last for place, node in new.items()}
    while True:
        stores = [{place: new[place] for place in new if when[place] == number} for number in range(last + 1)]
        replaced = [{new[place]: place for place in new if when[place] < number} for number in range(last + 1)]
        made = [
            Stage(number, needed, stores[number], small if number == last else {}, replaced[number])
            for number in range(last + 1)
        ]
        early = [p for p in new if any(graph.inputs[p] in stage.inside for stage in made[when[p] + 1 :])]
        if not early:
            return made
        when |= dict.fromkeys(early, last)


def _walk(
    sinks: Iterable[Node], outside: Callable[[Node], bool], through: bool = False
) -> tuple[list[Node], list[Node]]:
    """What leads to ``sinks``, in order, and what that begins with: what is ``outside``, and constants nowhere."""
    inner: set[Node] = set()
    outer: set[Node] = set()
    todo = list(sinks)
    while todo:
        node = todo.pop()
        if node.op == "const" or node in inner or node in outer:
            continue
        if outside(node):
            outer.add(node)
            continue
        inner.add(node)
        if through or node.op not in REDUCTIONS:
            todo += [arg for arg in node.args if isinstance(arg, Node)]
    return sorted(inner, key=lambda node: node.index), sorted(outer, key=lambda node: node.index)
