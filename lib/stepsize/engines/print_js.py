"""A rule, and the gradient of a landscape, printed as JavaScript: for a page that has no kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from ..rules.base import Rule
from .trace import Node, _walk, trace

if TYPE_CHECKING:
    from ..landscapes import Landscape

CALLS = {"sqrt": "Math.sqrt", "fabs": "Math.abs", "exp": "Math.exp", "log": "Math.log", "pow": "Math.pow"}
# Of torch: what a landscape may be made of.
OPERATORS = {"add.Tensor": "+", "sub.Tensor": "-", "mul.Tensor": "*", "mul.Scalar": "*", "div.Tensor": "/"}
FUNCTIONS = {
    "abs": "Math.abs",
    "cos": "Math.cos",
    "exp": "Math.exp",
    "log": "Math.log",
    "pow.Tensor_Scalar": "Math.pow",
    "sgn": "Math.sign",
    "sin": "Math.sin",
    "sqrt": "Math.sqrt",
}

# --- a rule ---------------------------------------------------------------------------------------------------------


def rule_source(rule: Rule, hyper: Mapping[str, Any], size: int) -> str:
    """``(p, g, t, state, h) => [new p, …new state]`` for a vector of ``size`` numbers.

    A state is an array of ``size`` numbers, or one number where the rule keeps one per layer; ``h`` are the numbers
    of ``hyper``, in its order, those of a tuple one after another. What is no number is built in.
    Raises what :func:`stepsize.engines.trace.trace` raises.
    """
    graph = trace(rule, hyper, ndim=1)
    needed, _ = _walk(graph.outputs.values(), lambda node: False, through=True)
    lines = [line for node in needed for line in _declared(node, size)]
    places = sorted(graph.outputs)
    results = [_result(graph.outputs[place], graph.inputs[place].kind == "tensor", size) for place in places]
    return f"(p, g, t, state, h) => {{ {' '.join(lines)} return [{', '.join(results)}]; }}"


def _result(node: Node, many: bool, size: int) -> str:
    return f"[{', '.join(_at(node, n) for n in range(size))}]" if many else _at(node, 0)


def _at(node: Node, n: int) -> str:
    """The value of a node, or of its element ``n``."""
    if node.op == "const":
        return str(node.args[0]).lower() if node.boolean else repr(float(node.args[0]))
    return f"{node.name}_{n}" if node.kind == "tensor" else node.name


def _declared(node: Node, size: int) -> list[str]:
    if node.kind != "tensor":
        return [f"const {node.name} = {_expression(node, 0, size)};"]
    return [f"const {node.name}_{n} = {_expression(node, n, size)};" for n in range(size)]


def _expression(node: Node, n: int, size: int) -> str:
    leaves = {"t": "t", "numel": str(size), "rows": str(size)}
    if node.op in leaves:
        return leaves[node.op]
    if node.op == "hyper":
        return f"h[{node.args[0]}]"
    if node.op == "input":
        where = ("p", "g")[node.args[0]] if node.args[0] < 2 else f"state[{node.args[0] - 2}]"
        return f"{where}[{n}]" if node.kind == "tensor" else where
    if node.op in ("norm", "sum"):
        terms = [_at(node.args[0], k) for k in range(size)]
        return f"Math.hypot({', '.join(terms)})" if node.op == "norm" else " + ".join(terms)
    args = [_at(arg, n) for arg in node.args]
    if node.op == "where":
        return f"{args[0]} ? {args[1]} : {args[2]}"
    if node.op == "neg":
        return f"-{args[0]}"
    if node.op in ("max", "min"):
        return f"Math.{node.op}({', '.join(args)})"
    if node.op in CALLS:
        return f"{CALLS[node.op]}({', '.join(args)})"
    op = {"==": "===", "!=": "!==", "&": "&&", "|": "||"}.get(node.op, node.op)
    return f" {op} ".join(args)


# --- a landscape ----------------------------------------------------------------------------------------------------


def landscape_source(surface: Landscape) -> str:
    """``x => [f, gradient]`` for a point of two coordinates, without the surface's noise.

    Raises ``ValueError`` for a surface over one coordinate, or made of an operation that is not in the tables above.
    """
    if surface.dimensions != 2:
        raise ValueError(f"{surface.name} has {surface.dimensions} coordinate(s): only two can be printed")

    def height(*x: Tensor) -> Tensor:
        return surface(torch.stack(x))

    def both(*x: Tensor) -> tuple[Any, ...]:
        slopes, value = torch.func.grad_and_value(height, argnums=tuple(range(len(x))))(*x)
        return (value, *slopes)

    start = [torch.tensor(float(x), dtype=torch.float64) for x in surface.start]
    names, lines = dict[str, Any](), list[str]()
    inputs = iter(range(len(start)))
    for node in make_fx(both)(*start).graph.nodes:
        if node.op == "placeholder":
            names[node.name] = f"x[{next(inputs)}]"
        elif node.op == "output":
            value, *slopes = (names[arg.name] for arg in node.args[0])
            return f"x => {{ {' '.join(lines)} return [{value}, [{', '.join(slopes)}]]; }}"
        else:
            made = _scalar(node, lambda arg: names[arg.name] if hasattr(arg, "name") else arg)
            names[node.name] = made
            if isinstance(made, str) and made.startswith("="):
                names[node.name] = node.name
                lines.append(f"const {node.name} {made};")
    raise AssertionError("a graph ends with its output")


def _scalar(node: Any, value: Any) -> Any:
    """A JavaScript expression behind ``= ``, or what is known already: a name, a list of names, a number."""
    name = str(node.target).removeprefix("aten.").removesuffix(".default")
    if name == "<built-in function getitem>":
        return value(node.args[0])[node.args[1]]
    if name in ("detach", "alias", "view", "squeeze.dim", "unsqueeze"):
        return value(node.args[0])
    if name == "stack":
        return [value(arg) for arg in node.args[0]]
    if name == "unbind.int":
        return list(value(node.args[0]))
    if name == "select.int":
        return value(node.args[0])[node.args[2]]
    if name in ("ones_like", "zeros_like", "scalar_tensor", "full", "full_like"):
        return {"ones_like": 1.0, "zeros_like": 0.0}.get(name, node.args[-1])
    args = [value(arg) for arg in node.args]
    if name == "neg":
        return f"= -{args[0]}"
    if name == "rsub.Scalar":
        return f"= {args[1]} - {args[0]}"
    if name in OPERATORS:
        return f"= {args[0]} {OPERATORS[name]} {args[1]}"
    if name in FUNCTIONS:
        return f"= {FUNCTIONS[name]}({', '.join(map(str, args))})"
    raise ValueError(f"there is no JavaScript for torch's {name}")
