"""The graph of a rule as Triton: for all tensors of a group, one launch for each pass over memory.

Held to the loop in Triton's interpreter, and compiled to the machine code of GPUs; not run on a GPU by us yet.
"""

from __future__ import annotations

from .trace import REDUCTIONS, Graph, Node, Stage, Untraceable, _walk, stages

# Elements that a program has in its registers at once, and programs that share a tensor, at most: each of them adds
# up what all have summed.
BLOCK, PIECES = 2**12, 2**10
# What a tensor's row of the table begins with; then come addresses. After all rows, where ``at`` says, come numbers,
# as the bits of doubles.
HEAD = ("numel", "first", "pieces", "blocks", "at")

BEFORE = """\
import math

import triton
import triton.language as tl
"""


class Printer:
    """Writes the passes of one graph and the function of its numbers.

    ``real`` is the dtype that is computed in, ``"float32"`` or ``"float64"``, and ``stored`` that of parameter and
    gradient. Raises :class:`Untraceable` for rows and columns, and for an operation that Triton lacks.
    """

    def __init__(self, graph: Graph, real: str, stored: str) -> None:
        self.graph, self.real, self.stages = graph, real, stages(graph)
        self.stored = [stored, stored, *[real] * (len(graph.inputs) - 2)]
        needed, _ = _walk(graph.outputs.values(), lambda node: False, through=True)
        if any(node.kind in ("row", "column") for node in (*needed, *graph.inputs)):
            raise Untraceable("numbers per row or column stay with the loop on a GPU")
        if real != stored and any(place == 0 for stage in self.stages for place in stage.replaced.values()):
            raise Untraceable("a parameter of half precision is read again after it is stored")
        self.scalars = [node for node in needed if node.kind == "scalar"]
        on_device = [node for node in needed if node.kind != "scalar"]
        taken = {arg for node in on_device for arg in node.args if isinstance(arg, Node)} | {*graph.outputs.values()}
        # What the host computes for the device, in double.
        self.numbers = [node for node in self.scalars if node in taken]
        self.sums = [node for node in on_device if node.op in REDUCTIONS]
        self.olds = [node for node in graph.inputs if node.kind == "layer"]
        self.columns = len(HEAD) + len(graph.inputs)
        self.sized = any(node.op in ("numel", "rows") for node in self.scalars)
        # Where a layer's number is replaced, it has to be read before, and by a launch before.
        self.passes = [f"pass_{n}" for n in range(len(self.stages) + (len(self.stages) == 1 and bool(self.olds)))]

    def source(self) -> str:
        """The whole module: the functions of ``passes``, and ``numbers``."""
        made: list[Stage | None] = [*self.stages]
        if len(made) < len(self.passes):
            made.insert(0, None)
        return "\n\n".join([BEFORE, *(self._pass(n, stage) for n, stage in enumerate(made)), self.host()])

    def host(self) -> str:
        """The function of hyper-parameters, ``t``, size and first dimension that gives the numbers of one tensor."""
        lines = [f"    {node.name} = {self._on_host(node)}" for node in self.scalars]
        values = "".join(f"float({node.name}), " for node in self.numbers)
        return "\n".join(["def numbers(h, t, numel, rows):", *lines, f"    return ({values})"]) + "\n"

    def _pass(self, number: int, stage: Stage | None) -> str:
        lines = ["k = tl.load(owners + tl.program_id(0)).to(tl.int64)", f"row = table + k * {self.columns}"]
        lines += [f"{name} = tl.load(row + {i})" for i, name in enumerate(HEAD)]
        lines.append("piece = tl.program_id(0) - first")
        for place, stored in enumerate(self.stored):
            lines.append(f"x{place} = tl.load(row + {len(HEAD) + place}).to(tl.pointer_type(tl.{stored}))")
            if self.graph.inputs[place].kind == "tensor":
                lines += ["if aligned:", f"    x{place} = tl.multiple_of(x{place}, 16)"]
        if number == 0:
            for i, node in enumerate(self.olds):
                old = f"olds + k * {len(self.olds)} + {i}"
                lines.append(f"tl.store({old}, tl.load(x{node.args[0]}), mask=piece == 0)")
        if stage is not None:
            lines += self._stage(number, stage)
        head = f"@triton.jit\ndef pass_{number}(table, owners, sums, olds, aligned: tl.constexpr):"
        return "\n    ".join([head, *lines]) + "\n"

    def _stage(self, number: int, stage: Stage) -> list[str]:
        outside = [node for node in stage.outside if node.kind != "tensor"]
        stop = [node for node in outside if node.kind == "scalar"]
        layers, given = _walk([*outside, *stage.small.values()], lambda node: node.kind == "scalar")
        lines = []
        for node in sorted({*given, *stop}, key=lambda node: node.index):
            value = f"tl.load(table + at + {self.numbers.index(node)}).to(tl.float64, bitcast=True).to(tl.{self.real})"
            lines.append(f"{node.name} = {value}{' != 0' if node.boolean else ''}")
        for node in layers:
            lines += [f"{node.name} = {self._layer(number, node)}"]
        for place, node in stage.small.items():
            lines.append(f"tl.store(x{place}, {self._operand(node)}, mask=piece == 0)")
        if not stage.stores and not stage.sums:
            return lines
        lines += [f"s{node.index} = tl.zeros([{BLOCK}], tl.{self.real})" for node in stage.sums]
        lines += [
            f"start = piece * blocks * {BLOCK}",
            f"stop = tl.minimum(start + blocks * {BLOCK}, numel)",
            f"whole = start + (stop - start) // {BLOCK} * {BLOCK}",
            f"for begin in range(start, whole, {BLOCK}):",
            *(f"    {line}" for line in self._elements(stage, masked=False)),
            "if whole < stop:",
            "    begin = whole",
            *(f"    {line}" for line in self._elements(stage, masked=True)),
        ]
        for node in stage.sums:
            at = f"sums + (first + piece) * {len(self.sums)} + {self.sums.index(node)}"
            lines.append(f"tl.store({at}, tl.sum(s{node.index}.to(tl.float64)))")
        return lines

    def _elements(self, stage: Stage, masked: bool) -> list[str]:
        """What a pass does with a block of elements."""
        lines = [f"j = begin + tl.arange(0, {BLOCK})"] + ["here = j < numel"] * masked
        loaded = {node: node.args[0] for node in stage.inside if node.op == "input"}
        loaded |= {node: stage.replaced[node] for node in stage.outside if node.kind == "tensor"}
        for node, place in loaded.items():
            value = f"tl.load(x{place} + j{', mask=here, other=0.0' * masked})"
            lines.append(f"{node.name} = {value}.to(tl.{self.real})")
        lines += [f"{node.name} = {self._expression(node)}" for node in stage.inside if node.op != "input"]
        for node in stage.sums:
            x = self._operand(node.args[0])
            term = f"{x} * {x}" if node.op == "norm" else x
            lines.append(f"s{node.index} += {f'tl.where(here, {term}, 0.0)' if masked else term}")
        for place, node in stage.stores.items():
            lines.append(f"tl.store(x{place} + j, {self._operand(node)}{', mask=here' * masked})")
        return lines

    def _layer(self, number: int, node: Node) -> str:
        if node.op == "input":
            # In the last pass another program may have replaced it already.
            old = f"olds + k * {len(self.olds)} + {self.olds.index(node)}"
            return f"tl.load(x{node.args[0]})" if number == 0 else f"tl.load({old})"
        if node.op not in REDUCTIONS:
            return self._expression(node)
        j = f"(first + tl.arange(0, {PIECES})) * {len(self.sums)} + {self.sums.index(node)}"
        parts = f"tl.load(sums + {j}, mask=tl.arange(0, {PIECES}) < pieces, other=0.0)"
        total = f"tl.sum({parts}).to(tl.{self.real})"
        return self._root(total) if node.op == "norm" else total

    def _root(self, x: str) -> str:
        # The plain root and quotient of float32 are approximate.
        return f"tl.sqrt_rn({x})" if self.real == "float32" else f"tl.sqrt({x})"

    def _expression(self, node: Node) -> str:
        if node.op in ("&", "|"):
            return f" {node.op} ".join(arg.name for arg in node.args)
        if node.op == "where":
            condition, yes, no = node.args
            return f"tl.where({condition.name}, {self._operand(yes)}, {self._operand(no)})"
        args = [self._operand(arg) for arg in node.args]
        if node.op in ("max", "min"):
            a, b = args
            chosen = f"tl.where({a} {'<' if node.op == 'max' else '>'} {b}, {b}, {a})"
            return f"tl.where({b} == {b}, {chosen}, {b})"  # NaN, as in torch, is what they give where either is NaN
        if node.op == "/" and self.real == "float32":
            return f"tl.div_rn({', '.join(args)})"
        if node.op == "sqrt":
            return self._root(args[0])
        if node.op in ("exp", "log", "fabs"):
            return f"tl.{node.op.removeprefix('f')}({args[0]})"
        if node.op == "neg":
            return f"-{args[0]}"
        if node.op[0].isalpha():
            raise Untraceable(f"no {node.op} of a {node.kind} on a GPU")
        return f" {node.op} ".join(args)

    def _operand(self, node: Node) -> str:
        if node.op == "const":
            return f"tl.full([], {float(node.args[0])!r}, tl.{self.real})"
        return f"{node.name}.to(tl.{self.real})" if node.boolean else node.name

    def _on_host(self, node: Node) -> str:
        if node.op in ("const", "hyper"):
            return repr(node.args[0]) if node.op == "const" else f"h[{node.args[0]}]"
        if not node.args:
            return node.op
        args = [repr(arg.args[0]) if arg.op == "const" else arg.name for arg in node.args]
        if node.op == "where":
            return f"{args[1]} if {args[0]} else {args[2]}"
        if node.op in ("pow", "neg"):
            return " ** ".join(args) if node.op == "pow" else f"-{args[0]}"
        call = {"max": "max", "min": "min", "fabs": "abs", "exp": "math.exp", "log": "math.log", "sqrt": "math.sqrt"}
        return f"{call[node.op]}({', '.join(args)})" if node.op in call else f" {node.op} ".join(args)
