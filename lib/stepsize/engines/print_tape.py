"""A tape of torch's operations as C: one function that does them all for one run, called for each of many."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from string import Template
from typing import Any

import torch

from .capture import Operation, Tape, Unsupported, View
from .print_c import indented

NAMES = {torch.float32: "float", torch.int64: "int64_t", torch.bool: "uint8_t"}
# Bytes: no two buffers share a vector.
ALIGNED = 64
# The columns of a panel, where vectors are longest.
WIDEST = 32
# Later than any group of operations.
END = 10**9
# Buffers that are on no tape: those of the outputs that are copied, and of powers of e.
COPIES, POWERS = END, END - 1

BEFORE = """\
#include <math.h>
#include <stdint.h>
#include <string.h>

/* In a product of matrices a sum may take up the product before that is rounded. */
#ifdef __clang__
#pragma clang fp contract(fast)
#else
#pragma GCC optimize("O2", "fp-contract=fast")
#endif
#ifdef __AVX512F__
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif
enum { TALL = 6, WIDE = 2 * LANES };
typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define LARGER(a, b) ((a) < (b) | (b) != (b) ? (b) : (a))
#define IS_PLACE(k, n) ((uint64_t)(k) < (n))
#define INLINE static inline __attribute__((always_inline))

/* e^x: a power of two times the series of what is left, which lies within half a logarithm of two. */
INLINE float exponential(float x) {
  x = x < -104 ? -104 : x > 89 ? 89 : x;
  const float k = rintf(x * 1.44269504f), r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  float s = 1.9875691500e-4f;
  s = s * r + 1.3981999507e-3f, s = s * r + 8.3334519073e-3f, s = s * r + 4.1665795894e-2f;
  s = s * r + 1.6666665459e-1f, s = s * r + 5.0000001201e-1f, s = s * r * r + r + 1;
  const int32_t power = (int32_t)k, half = power / 2;
  union { int32_t i; float f; } one = {(half + 127) << 23}, other = {(power - half + 127) << 23};
  return s * one.f * other.f;
}

/* A tile of c, rows by WIDE, of which the first width columns are wanted: its sums stay in registers. */
INLINE void tile(const int rows, int64_t k, const float *a, int64_t am, int64_t ak, const float *b, int64_t bk,
                 float *c, int64_t cm, int64_t width) {
  vector s[TALL][2] = {0};
  for (int64_t p = 0; p < k; p++) {
    const vector left = *(const vector *)(b + p * bk), right = *(const vector *)(b + p * bk + LANES);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) s[i][0] += a[i * am + p * ak] * left, s[i][1] += a[i * am + p * ak] * right;
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; i++) {
    if (width == WIDE) memcpy(c + i * cm, s[i], WIDE * sizeof *c); else memcpy(c + i * cm, s[i], width * sizeof *c);
  }
}

/* c (m, n) = a (m, k) b (k, n); columns of b that do not lie side by side are first brought together in panel. */
static void product(int64_t m, int64_t n, int64_t k, const float *a, int64_t am, int64_t ak, const float *b, int64_t bk,
                    int64_t bn, float *c, float *panel) {
  for (int64_t j = 0; j < n; j += WIDE, b += WIDE * bn, c += WIDE) {
    const int64_t width = n - j < WIDE ? n - j : WIDE, packed = bn != 1 || width < WIDE, step = packed ? WIDE : bk;
    if (packed) for (int64_t p = 0; p < k; p++) for (int64_t q = 0; q < WIDE; q++)
      panel[p * WIDE + q] = q < width ? b[p * bk + q * bn] : 0;
    const float *const from = packed ? panel : b;
    if (m < TALL) for (int64_t i = 0; i < m; i++) tile(1, k, a + i * am, am, ak, from, step, c + i * n, n, width);
    /* The last tile may do some rows again. */
    else for (int64_t i = 0; i < m; i += TALL) {
      const int64_t top = i + TALL > m ? m - TALL : i;
      tile(TALL, k, a + top * am, am, ak, from, step, c + top * n, n, width);
    }
  }
}
"""

AFTER = Template(
    """
int step(int64_t runs, const int64_t *table, char *scratch, int64_t threads) {
  for (; runs--; table += $columns) if (run((char *const *)table, scratch)) return 1;
  return 0;
}
"""
)


def _binary(sign: str) -> Callable[..., str]:
    return lambda a, b, alpha=1: f"{a} {sign} {b}" if alpha == 1 else f"{a} {sign} {_number(alpha)} * {b}"


def _function(name: str) -> Callable[..., str]:
    return lambda x: f"{name}({x})"


COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "gt": ">"}
# Operations on one element each, in the words of C.
POINTWISE: dict[str, Callable[..., str]] = {
    **{name: _binary(sign) for name, sign in (COMPARISONS | {"add": "+", "sub": "-", "mul": "*", "div": "/"}).items()},
    **{name: _function(word) for name, word in {"exp": "exponential", "log": "logf", "tanh": "tanhf"}.items()},
    "neg": _function("-"),
    "clone": lambda x, memory_format=None: x,
    "_to_copy": lambda x, dtype: x,
    "relu": lambda x: f"{x} < 0 ? 0 : {x}",
    "threshold_backward": lambda g, x, threshold: f"{x} <= {threshold} ? 0 : {g}",
    "tanh_backward": lambda g, y: f"{g} * (1 - {y} * {y})",
}


class Printer:
    """Writes the C of one tape. A run's row has addresses: of inputs, constants and outputs, ``columns`` in all."""

    def __init__(self, tape: Tape) -> None:
        self.groups = _groups(tape.operations)
        # The last group that needs a buffer.
        self.last: dict[int, int] = {}
        for number, group in enumerate(self.groups):
            self.last |= {view.buffer: number for operation in group for view in views(operation)}
        given = [view.buffer for view in tape.inputs] + list(tape.constants)
        self.bases = {buffer: f"x[{column}]" for column, buffer in enumerate(given)}
        self.columns = len(given) + len(tape.outputs)
        results = {operation.result for group in self.groups for operation in group}
        for column, view in enumerate(tape.outputs, len(given)):
            # A result with a buffer of its own is made where it is wanted, others are copied there in the end.
            if view.whole and view in results and view.buffer not in self.bases:
                self.bases[view.buffer] = f"x[{column}]"
                self.last[view.buffer] = END
                continue
            to = View(COPIES + column, 0, view.shape, row_by_row(view.shape), view.dtype)
            self.bases[to.buffer] = f"x[{column}]"
            self.groups.append([Operation("clone", (view,), {}, to)])
            self.last |= {view.buffer: END, to.buffer: END}
        # Buffers that are needed now: where in the scratch they lie, and their bytes.
        self.taken: dict[Any, tuple[int, int]] = {}
        self.scratch = 0

    def source(self) -> str:
        """The whole file. After it, ``scratch`` is how many bytes the function needs."""
        body = []
        for number, group in enumerate(self.groups):
            kept = [operation for operation in group if self.last[operation.result.buffer] > number]
            if not kept:
                continue
            for operation in kept:
                if operation.result.buffer not in self.bases:
                    self._take(operation.result.buffer, operation.result)
            pointers = {
                view.buffer: f"{NAMES[view.dtype]} *const {_name(view)} = (void *)({self.bases[view.buffer]});"
                for operation in group
                for view in views(operation)
                if view.buffer in self.bases
            }
            lines = self._pointwise(group, kept) if group[0].name in POINTWISE else self._other(group[0])
            body += ["{", *pointers.values(), *lines, "}"]
            for buffer in pointers:
                if self.last[buffer] <= number and buffer in self.taken:
                    self._give_back(buffer)
        function = ["static int run(char *const *x, char *scratch) {", *body, "return 0;", "}"]
        return BEFORE + "\n" + indented("\n".join(function)) + AFTER.substitute(columns=self.columns)

    def _take(self, buffer: Any, like: View, numel: int = 0) -> str:
        """Find room in the scratch: the first gap that is wide enough."""
        size = -(-(numel or math.prod(like.shape)) * like.dtype.itemsize // ALIGNED) * ALIGNED
        place = 0
        for start, length in sorted(self.taken.values()):
            if place + size <= start:
                break
            place = max(place, start + length)
        self.taken[buffer] = place, size
        self.scratch = max(self.scratch, place + size)
        self.bases[buffer] = f"scratch + {place}"
        return self.bases[buffer]

    def _give_back(self, buffer: Any) -> None:
        del self.taken[buffer], self.bases[buffer]

    def _pointwise(self, group: list[Operation], kept: list[Operation]) -> list[str]:
        shape, flat = group[0].result.shape, all(map(_is_flat, group))
        made: dict[View, str] = {}
        lines = []

        def read(x: Any, dtype: torch.dtype) -> Any:
            if isinstance(x, View):
                value = made.get(x) or _at(x, shape, flat)
                return value if x.dtype is dtype else f"({NAMES[dtype]}){value}"
            return _number(x, dtype) if isinstance(x, (int, float)) else x

        for operation in group:
            result = operation.result
            compared = operation.name in COMPARISONS
            if result.dtype is not torch.float32 and not compared and operation.name != "clone":
                raise Unsupported(f"{operation.name} to {result.dtype}")
            kinds = {x.dtype for x in views(operation)} - ({torch.bool} if compared else set())
            dtype = result.dtype if not compared else torch.float32 if torch.float32 in kinds else torch.int64
            value = POINTWISE[operation.name](*(read(x, dtype) for x in operation.arguments), **operation.options)
            made[result] = f"v{result.buffer}"
            lines.append(f"const {NAMES[result.dtype]} v{result.buffer} = {value};")
            if operation in kept:
                lines.append(f"{_at(result, shape, flat)} = v{result.buffer};")
        return _nest((math.prod(shape),) if flat else shape, lines)

    def _other(self, operation: Operation) -> list[str]:
        if operation.options:
            raise Unsupported(f"{operation.name} with {', '.join(operation.options)}")
        lines: list[str] = getattr(self, f"do_{operation.name}")(operation)
        return lines

    def do_mm(self, operation: Operation) -> list[str]:
        *bias, a, b = operation.arguments
        (m, k), n, c = a.shape, b.shape[1], operation.result
        if not c.whole:
            raise Unsupported("a product that does not lie row by row")
        panel = self._take("panel", c, k * WIDEST)
        self._give_back("panel")
        of = ", ".join(f"{_name(x)} + {x.offset}, {x.stride[0]}, {x.stride[1]}" for x in (a, b))
        lines = [f"product({m}, {n}, {k}, {of}, {_name(c)}, (float *)({panel}));"]
        return lines + (_nest(c.shape, [f"{_at(c)} += {_at(bias[0], c.shape)};"]) if bias else [])

    do_addmm = do_mm

    def do_sum(self, operation: Operation) -> list[str]:
        x, *more = operation.arguments
        dims, keepdim = more[0] if more else None, len(more) > 1 and more[1]
        y, rank = operation.result, len(x.shape)
        gone = {d % rank for d in dims} if dims else set(range(rank))
        strides = iter([s for d, s in enumerate(y.stride) if not keepdim or d not in gone])
        spread = replace(y, shape=x.shape, stride=tuple(0 if d in gone else next(strides) for d in range(rank)))
        lines = _nest(y.shape, [f"{_at(y)} = 0;"])
        if rank - 1 not in gone:
            return [*lines, *_nest(x.shape, [f"{_at(spread)} += {_at(x)};"])]
        row = ["double s = 0;", *_nest(x.shape, [f"s += {_at(x)};"], "reduction(+ : s)", start=rank - 1)]
        return [*lines, *_nest(x.shape[:-1], [*row, f"{_at(spread)} += s;"], None)]

    def do_mean(self, operation: Operation) -> list[str]:
        y, n = operation.result, math.prod(operation.arguments[0].shape) // math.prod(operation.result.shape)
        return [*self.do_sum(operation), *_nest(y.shape, [f"{_at(y)} /= {n};"])]

    def do_logsumexp(self, operation: Operation) -> list[str]:
        (x, dims, *_), y = operation.arguments, operation.result
        rows, last = x.shape[:-1], len(x.shape) - 1
        if [d % len(x.shape) for d in dims] != [last] or len(y.shape) != last:
            raise Unsupported("logsumexp over other dimensions than the last, or keeping it")
        e = View(POWERS, 0, x.shape, row_by_row(x.shape), x.dtype)
        pointer = f"float *const {_name(e)} = (void *)({self._take(POWERS, e)});"
        self._give_back(POWERS)
        top = f"{_at(x, x.shape)}".replace(f"i{last}", "0")
        lines = [f"float top = {top};", *_nest(x.shape, [f"top = LARGER(top, {_at(x)});"], None, last)]
        lines += ["top = fabsf(top) == INFINITY ? 0 : top;", f"{_at(y, rows)} = top;"]
        lines += _nest(x.shape, [f"{_at(e)} = {_at(x)} - top;"], "", last)
        total = ["float s = 0;", *_nest(x.shape, [f"s += {_at(e)};"], None, last), f"{_at(y, rows)} += logf(s);"]
        powers = _nest((math.prod(x.shape),), [f"{_name(e)}[i0] = exponential({_name(e)}[i0]);"])
        return [pointer, *_nest(rows, lines, None), *powers, *_nest(rows, total, None)]

    def do_argmax(self, operation: Operation) -> list[str]:
        (x, dim), y = operation.arguments, operation.result
        rows, last = x.shape[:-1], len(x.shape) - 1
        if dim % len(x.shape) != last:
            raise Unsupported("argmax over another dimension than the last")
        better = f"if ({_at(x)} > top | {_at(x)} != {_at(x)} & top == top) top = {_at(x)}, at = i{last};"
        lines = ["float top = -INFINITY;", "int64_t at = 0;", *_nest(x.shape, [better], None, last)]
        return _nest(rows, [*lines, f"{_at(y, rows)} = at;"], None)

    def do_index(self, operation: Operation) -> list[str]:
        (x, places), y = operation.arguments, operation.result
        if len(places) != 1 or len(places[0].shape) != 1 or places[0].dtype is not torch.int64:
            raise Unsupported("an index of another kind than places in the first dimension")
        lines = [_place(_at(places[0], y.shape[:1]), x.shape[0])]
        return _nest(y.shape[:1], [*lines, *_nest(y.shape, [f"{_at(y)} = {_at(x).replace('i0', 'k')};"], "", 1)], None)

    def do_gather(self, operation: Operation) -> list[str]:
        (x, dim, places), y = operation.arguments, operation.result
        from_ = _along(x, dim, y.shape)
        return _nest(y.shape, [_place(_at(places), x.shape[dim]), f"{_at(y)} = {from_};"], None)

    def do_scatter_add(self, operation: Operation) -> list[str]:
        (x, dim, places, more), y = operation.arguments, operation.result
        lines = _nest(y.shape, [f"{_at(y)} = {_at(x)};"])
        to = _along(y, dim, places.shape)
        return lines + _nest(places.shape, [_place(_at(places), y.shape[dim]), f"{to} += {_at(more)};"], None)

    def do_select_backward(self, operation: Operation) -> list[str]:
        (x, _, dim, index), y = operation.arguments, operation.result
        lines = _nest(y.shape, [f"{_at(y)} = 0;"])
        part = [(n, s) for d, (n, s) in enumerate(zip(y.shape, y.stride, strict=True)) if d != dim % len(y.shape)]
        first = y.offset + index % y.shape[dim] * y.stride[dim]
        to = View(y.buffer, first, tuple(n for n, _ in part), tuple(s for _, s in part), y.dtype)
        return lines + _nest(x.shape, [f"{_at(to)} = {_at(x)};"])


def known(name: str) -> bool:
    """Whether there is C for the operation of this name in aten."""
    return name in POINTWISE or hasattr(Printer, f"do_{name}")


def views(operation: Operation) -> Iterator[View]:
    """Its arguments that are tensors, and its result."""
    for argument in (*operation.arguments, operation.result):
        yield from (x for x in (argument if isinstance(argument, list) else [argument]) if isinstance(x, View))


def _groups(operations: Sequence[Operation]) -> list[list[Operation]]:
    """Operations that one loop can do: each element needs that of others alone."""
    groups: list[list[Operation]] = []
    for operation in operations:
        if groups and _joins(operation, groups[-1]):
            groups[-1].append(operation)
        else:
            groups.append([operation])
    return groups


def _joins(operation: Operation, group: list[Operation]) -> bool:
    first, made = group[0], {before.result.buffer: before.result for before in group}
    alike = operation.name in POINTWISE and first.name in POINTWISE and operation.result.shape == first.result.shape
    # What is dear is done best by a loop over everything, however short the rows.
    alike = alike and (_is_flat(operation) == _is_flat(first) or (_is_flat(operation) and operation.name != "exp"))
    return alike and all(made.get(view.buffer, view) == view for view in views(operation))


def _is_flat(operation: Operation) -> bool:
    """Whether all tensors lie row by row in one shape, so that one loop goes through."""
    shape = operation.result.shape
    return all(view.shape == shape and view.whole for view in views(operation))


def row_by_row(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor that is contiguous."""
    return tuple(math.prod(shape[d + 1 :]) for d in range(len(shape)))


def _name(view: View) -> str:
    return f"b{view.buffer}"


def _at(view: View, shape: tuple[int, ...] | None = None, flat: bool = False) -> str:
    """Its element at ``i0``, ``i1``, … of a loop over ``shape``, to which it is broadcast."""
    if flat:
        return f"{_name(view)}[i0]"
    skipped = len(view.shape if shape is None else shape) - len(view.shape)
    terms = [
        f"{s} * i{d}" for d, (n, s) in enumerate(zip(view.shape, view.stride, strict=True), skipped) if n > 1 and s
    ]
    return f"{_name(view)}[{' + '.join([str(view.offset), *terms])}]"


def _along(view: View, dim: int, shape: tuple[int, ...]) -> str:
    """Its element at ``k`` in dimension ``dim`` and at ``i0``, ``i1``, … in the others."""
    terms = [f"{s} * {'k' if d == dim % len(shape) else f'i{d}'}" for d, s in enumerate(view.stride)]
    return f"{_name(view)}[{' + '.join([str(view.offset), *terms])}]"


def _place(value: str, n: int) -> str:
    """A place among n, counted from the end where it is negative; a wrong one ends the function."""
    return f"const int64_t k = {value} < 0 ? {value} + {n} : {value}; if (!IS_PLACE(k, {n})) return 1;"


def _nest(shape: Sequence[int], lines: list[str], simd: str | None = "", start: int = 0) -> list[str]:
    """A loop for each dimension from ``start``, the innermost with as many elements at once as the processor can."""
    loops = [f"for (int64_t i{d} = 0; i{d} < {n}; i{d}++) {{" for d, n in enumerate(shape) if d >= start]
    inner = [f"#pragma omp simd {simd}", *loops[-1:]] if loops and simd is not None else loops[-1:]
    return [*loops[:-1], *inner, *lines, *["}"] * len(loops)]


def _number(x: float, dtype: torch.dtype = torch.float32) -> str:
    if not math.isfinite(x):
        raise Unsupported(f"the number {x}")
    return f"{float(x)!r}f" if dtype is torch.float32 else repr(x)
