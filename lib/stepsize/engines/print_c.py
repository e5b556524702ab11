"""The graph of a rule as C: for all tensors of a group, one call; for each stage, one pass over memory."""

from __future__ import annotations

from string import Template

from .trace import REDUCTIONS, Graph, Node, Stage, stages

# Elements of one piece of work; of the tensors that go through all stages before the next ones begin, so that what
# a sum has read is still in a cache; and from how many on a second thread is worth waking.
BLOCK, WAVE, PARALLEL = 2**14, 2**19, 2**17
# Pieces of a tensor whose columns are summed, at most: each keeps sums of its own.
COLUMN_BLOCKS = 16

BEFORE = Template(
    """\
#include <stdint.h>
#include <stdlib.h>

typedef $real T;
enum { INPUTS = $inputs, NUMBERS = $numbers, ROWS = $rows, COLUMNS = $columns };
enum { SUMS = $sums, COLUMN_SUMS = $column_sums };
enum { MATRIX = $matrix, BLOCK = $block, WAVE = $wave, PARALLEL = $parallel, COLUMN_BLOCKS = $column_blocks };
#define LARGER(a, b) ((a) < (b) | (b) != (b) ? (b) : (a))
#define SMALLER(a, b) ((a) > (b) | (b) != (b) ? (b) : (a))

/* One tensor: its pieces are numbered from first, each of height rows, or of BLOCK elements of one row. */
typedef struct {
  int64_t numel, rows, lines, width, height, first, pieces;
  float *step;
  T *x[INPUTS], number[NUMBERS + 1], *row[ROWS + 1], *column[COLUMNS + 1];
  double *sum, *column_sum;
} tensor;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
"""
)

AFTER = Template(
    """
typedef void part(tensor *, int64_t, const double *);
static part *const ready[] = {$ready}, *const pass[] = {$passes};
enum { STAGES = sizeof ready / sizeof *ready };

typedef struct { tensor *tensors; int64_t count, pieces, next, threads; const double *h; part *part; } work;

static void share(void *shared) {
  work *w = shared;
  for (int64_t i; (i = __atomic_fetch_add(&w->next, 1, __ATOMIC_RELAXED)) < w->pieces;) {
    int64_t low = 0, high = w->count;
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      if (w->tensors[middle].first <= i) low = middle; else high = middle;
    }
    w->part(&w->tensors[low], i - w->tensors[low].first, w->h);
  }
}

/* Threads are those of the OpenMP runtime that torch has loaded, if it has one. */
extern void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned) __attribute__((weak));

static void run(work w, part *part) {
  if (!part) return;
  w.part = part;
  if (w.threads > 1 && w.pieces > 1 && GOMP_parallel) GOMP_parallel(share, &w, (unsigned)w.threads, 0);
  else share(&w);
}

int step(int64_t count, const int64_t *table, const double *h, int64_t threads) {
  tensor *tensors = calloc(count, sizeof *tensors);
  if (!tensors) return 1;
  size_t reals = 0, doubles = 0;
  for (int64_t i = 0; i < count; i++) {
    tensor *k = &tensors[i];
    k->numel = *table++, k->rows = *table++, k->step = (float *)*table++;
    for (int j = 0; j < INPUTS; j++) k->x[j] = (T *)*table++;
    k->lines = MATRIX ? k->rows : 1, k->width = k->numel / k->lines;
    k->height = COLUMN_SUMS ? (k->lines + COLUMN_BLOCKS - 1) / COLUMN_BLOCKS : 1;
    k->height = most(k->height, BLOCK / k->width);
    k->pieces = MATRIX ? (k->lines + k->height - 1) / k->height : (k->width + BLOCK - 1) / BLOCK;
    reals += ROWS * k->lines + COLUMNS * k->width;
    doubles += k->pieces * (SUMS + COLUMN_SUMS * k->width);
  }
  double *const memory = calloc(doubles + (reals * sizeof(T)) / sizeof(double) + 1, sizeof(double));
  if (!memory) return free(tensors), 1;
  double *d = memory;
  for (tensor *k = tensors; k < tensors + count; k++) {
    k->sum = d, d += k->pieces * SUMS;
    k->column_sum = d, d += k->pieces * COLUMN_SUMS * k->width;
  }
  T *r = (T *)d;
  for (tensor *k = tensors; k < tensors + count; k++) {
    for (int j = 0; j < ROWS; j++) k->row[j] = r, r += k->lines;
    for (int j = 0; j < COLUMNS; j++) k->column[j] = r, r += k->width;
  }
  for (int64_t begin = 0, end; begin < count; begin = end) {
    int64_t numel = 0, pieces = 0;
    for (end = begin; end < count && (STAGES == 1 || end == begin || numel + tensors[end].numel <= WAVE); end++) {
      tensors[end].first = pieces;
      pieces += tensors[end].pieces;
      numel += tensors[end].numel;
    }
    const work w = {tensors + begin, end - begin, pieces, 0, numel < PARALLEL ? 1 : threads, h, 0};
    for (int s = 0; s < STAGES; s++) {
      for (int64_t i = begin; i < end; i++) ready[s](&tensors[i], 0, h);
      run(w, pass[s]);
    }
  }
  free(memory), free(tensors);
  return 0;
}
"""
)


class Printer:
    """Writes the functions of one graph; ``real`` is ``"float"`` or ``"double"``."""

    def __init__(self, graph: Graph, real: str) -> None:
        self.graph, self.real, self.stages = graph, real, stages(graph)
        sums = [node for stage in self.stages for node in stage.sums]
        self.sums = [node for node in sums if node.kind == "layer"]
        self.column_sums = [node for node in sums if node.kind == "column"]
        carried = {node for stage in self.stages for node in (*stage.outside, *stage.taken)}
        kept = sorted({*carried, *(node for node in sums if node.kind == "row")}, key=lambda node: node.index)
        # Where a value waits from the part that computes it until another takes it.
        self.slots = {
            kind: [node for node in kept if node.kind in kinds]
            for kind, kinds in (("number", ("scalar", "layer")), ("row", ("row",)), ("column", ("column",)))
        }

    def source(self) -> str:
        """The whole file."""
        body = [self._ready(number, stage) for number, stage in enumerate(self.stages)]
        ready = [f"ready_{number}" for number in range(len(self.stages))]
        passes = ["0"] * len(self.stages)
        for number, stage in enumerate(self.stages):
            if stage.stores or stage.inside:
                passes[number] = f"pass_{number}"
                body.append(self._pass(number, stage))
        kinds = {node.kind for stage in self.stages for node in (*stage.ready, *stage.outside)}
        sizes = {"numbers": "number", "rows": "row", "columns": "column"}
        before = BEFORE.substitute(
            {name: len(self.slots[kind]) for name, kind in sizes.items()},
            real=self.real,
            inputs=len(self.graph.inputs),
            sums=len(self.sums),
            column_sums=len(self.column_sums),
            matrix=int(not kinds.isdisjoint(("row", "column"))),
            block=BLOCK,
            wave=WAVE,
            parallel=PARALLEL,
            column_blocks=COLUMN_BLOCKS,
        )
        after = AFTER.substitute(ready=", ".join(ready), passes=", ".join(passes))
        return "\n".join([before, *map(indented, body)]) + after

    def _ready(self, number: int, stage: Stage) -> str:
        lines = [f"static void ready_{number}(tensor *k, int64_t b, const double *h) {{", "(void)b; (void)h;"]
        if number == 0:
            lines.append("*k->step += 1;")
        for node in stage.taken:
            if node.kind == "layer":
                lines.append(self._kept(node))
        for node in stage.ready:
            if node.kind in ("scalar", "layer"):
                lines.append(self._declare(node, stage))
        for kind, index, end in (("row", "i", "k->lines"), ("column", "j", "k->width")):
            lines += self._small_loop(kind, index, end, stage)
        for node in stage.ready:
            if node in self.slots["number"]:
                lines.append(f"k->number[{self.slots['number'].index(node)}] = (T){node.name};")
        for place, node in stage.small.items():
            if self.graph.inputs[place].kind == "layer":
                lines.append(f"*k->x[{place}] = {self._operand(node)};")
        return "\n".join([*lines, "}"])

    def _small_loop(self, kind: str, index: str, end: str, stage: Stage) -> list[str]:
        """The values of a row or column; the sums over them go to the layer's first piece."""
        taken = [self._kept(node) for node in stage.taken if node.kind == kind]
        lines = [*taken, *(self._declare(node, stage) for node in stage.ready if node.kind == kind)]
        for node in stage.ready:
            if node in self.slots[kind] and (node.op not in REDUCTIONS or kind == "column"):
                lines.append(f"k->{kind}[{self.slots[kind].index(node)}][{index}] = {node.name};")
        for place, node in stage.small.items():
            if self.graph.inputs[place].kind == kind:
                lines.append(f"k->x[{place}][{index}] = {self._operand(node)};")
        for node in stage.sums:
            if node.args[0].kind == kind:
                lines.append(f"k->sum[{self.sums.index(node)}] += {self._term(node)};")
        return [f"for (int64_t {index} = 0; {index} < {end}; {index}++) {{", *lines, "}"] if lines else []

    def _pass(self, number: int, stage: Stage) -> str:
        lines = [
            f"static void pass_{number}(tensor *k, int64_t b, const double *h) {{",
            "(void)h;",
            "const int64_t top = MATRIX ? b * k->height : 0, bottom = MATRIX ? least(top + k->height, k->lines) : 1;",
            "const int64_t left = MATRIX ? 0 : b * BLOCK, right = MATRIX ? k->width : least(left + BLOCK, k->width);",
        ]
        lines += [self._kept(node) for node in stage.outside if node.kind in ("scalar", "layer")]
        sums = [node for node in stage.sums if node.args[0].kind == "tensor"]
        whole, rows, columns = ([node for node in sums if node.kind == kind] for kind in ("layer", "row", "column"))
        lines += [f"double s{node.index} = 0;" for node in whole]
        for node in columns:
            lines.append(
                f"double *const s{node.index} = k->column_sum + "
                f"(b * COLUMN_SUMS + {self.column_sums.index(node)}) * k->width;"
            )
        for node in stage.outside:
            if node.kind == "column":
                lines.append(f"const T *const c{node.index} = k->column[{self.slots['column'].index(node)}];")
        places = sorted({*stage.stores, *self._loaded(stage).values()})
        lines.append("for (int64_t i = top; i < bottom; i++) {")
        lines += [self._kept(node) for node in stage.outside if node.kind == "row"]
        lines += [f"double s{node.index} = 0;" for node in rows]
        lines += [f"T *const x{place} = k->x[{place}] + i * k->width;" for place in places]
        accumulators = ", ".join(f"s{node.index}" for node in (*whole, *rows))
        simd = "#pragma omp simd" + (f" reduction(+ : {accumulators})" if accumulators else "")
        loop = "for (int64_t j = left; j < right; j++) {"
        if not stage.stores and not rows and not columns:
            # Memory gives more when it is read in several places at once: in four parts, and what is left over.
            lines += ["const int64_t quarter = (right - left) / 4;", simd]
            lines.append("for (int64_t n = left; n < left + quarter; n++) for (int m = 0; m < 4; m++) {")
            lines += ["const int64_t j = n + m * quarter;", *self._element(stage), "}"]
            loop = "for (int64_t j = left + 4 * quarter; j < right; j++) {"
        else:
            lines.append(simd)
        lines += [loop, *self._element(stage), "}"]
        lines += [f"k->row[{self.slots['row'].index(node)}][i] = (T)s{node.index};" for node in rows]
        lines.append("}")
        lines += [f"k->sum[b * SUMS + {self.sums.index(node)}] = s{node.index};" for node in whole]
        return "\n".join([*lines, "}"])

    def _element(self, stage: Stage) -> list[str]:
        """What the pass does with element j of row i."""
        lines = [f"const T {node.name} = c{node.index}[j];" for node in stage.outside if node.kind == "column"]
        lines += [f"const T {node.name} = x{place}[j];" for node, place in self._loaded(stage).items()]
        lines += [self._declare(node, stage) for node in stage.inside if node.op != "input"]
        for node in stage.sums:
            if node.args[0].kind == "tensor":
                lines.append(f"s{node.index}{'[j]' if node.kind == 'column' else ''} += {self._term(node)};")
        return [*lines, *(f"x{place}[j] = {self._operand(node)};" for place, node in stage.stores.items())]

    def _loaded(self, stage: Stage) -> dict[Node, int]:
        """What the pass reads from the tensors: inputs, and new values that have replaced them."""
        inputs = {node: node.args[0] for node in stage.inside if node.op == "input"}
        return inputs | {node: stage.replaced[node] for node in stage.outside if node.kind == "tensor"}

    def _kept(self, node: Node) -> str:
        """Take a value that an earlier part has left."""
        kind = "number" if node.kind in ("scalar", "layer") else node.kind
        index = {"number": "", "row": "[i]", "column": "[j]"}[kind]
        place = f"k->{kind}[{self.slots[kind].index(node)}]{index}"
        return f"const int {node.name} = {place} != 0;" if node.boolean else f"const T {node.name} = {place};"

    def _declare(self, node: Node, stage: Stage) -> str:
        real = "int" if node.boolean else "double" if node.kind == "scalar" else "T"
        if node.op not in REDUCTIONS:
            return f"const {real} {node.name} = {self._expression(node)};"
        if node.kind == "row":
            return f"const T {node.name} = k->row[{self.slots['row'].index(node)}][i];"
        if node.kind == "column":
            place = f"k->column_sum[(b * COLUMN_SUMS + {self.column_sums.index(node)}) * k->width + j]"
        else:
            place = f"k->sum[b * SUMS + {self.sums.index(node)}]"
        total = f"double s{node.index} = 0; for (int64_t b = 0; b < k->pieces; b++) s{node.index} += {place};"
        value = f"(T)s{node.index}"
        return f"{total} const T {node.name} = {self._call('sqrt', value) if node.op == 'norm' else value};"

    def _term(self, node: Node) -> str:
        x = self._operand(node.args[0])
        return f"(double)({x} * {x})" if node.op == "norm" else f"(double){x}"

    def _expression(self, node: Node) -> str:
        leaves = {"t": "*k->step", "numel": "k->numel", "rows": "k->rows"}
        if node.op == "hyper":
            return f"h[{node.args[0]}]"
        if node.op == "input":
            index = {"layer": "0", "row": "i", "column": "j"}[node.kind]
            return f"k->x[{node.args[0]}][{index}]"
        if node.op in leaves:
            return f"(double){leaves[node.op]}"
        if node.op in ("&", "|"):
            return f" {node.op} ".join(self._operand(arg, "int") for arg in node.args)
        real = "double" if node.kind == "scalar" else "T"
        if node.op == "where":
            condition, *values = node.args
            yes, no = (self._operand(arg, real) for arg in values)
            return f"{self._operand(condition, 'int')} ? {yes} : {no}"
        args = [self._operand(arg, real) for arg in node.args]
        if node.op == "neg":
            return f"-{args[0]}"
        if node.op in ("max", "min"):
            return f"{'LARGER' if node.op == 'max' else 'SMALLER'}({', '.join(args)})"
        if node.op[0].isalpha():
            return self._call(node.op, *args, real=real)
        return f" {node.op} ".join(args)

    def _call(self, name: str, *args: str, real: str = "T") -> str:
        return f"__builtin_{name}{'f' if (real, self.real) == ('T', 'float') else ''}({', '.join(args)})"

    def _operand(self, node: Node, real: str = "T") -> str:
        """The value of ``node`` where a ``real`` is needed."""
        if node.op == "const":
            return f"({real}){float(node.args[0]).hex()}"
        mine = "int" if node.boolean else "double" if node.kind == "scalar" else "T"
        return node.name if mine == real else f"({real}){node.name}"


def source(graph: Graph, real: str) -> str:
    """C with one function, ``step``; ``real`` is the dtype of the tensors, ``"float"`` or ``"double"``."""
    return Printer(graph, real).source()


def indented(function: str) -> str:
    """C of one function, its lines moved in by their depth of braces."""
    lines, depth = [], 0
    for line in function.splitlines():
        depth -= line.startswith("}")
        lines.append("  " * depth + line)
        depth += line.endswith("{")
    return "\n".join(lines) + "\n"
