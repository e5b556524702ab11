// Draws the playground and listens to its reader. What moves the points comes from Python: RULES and SURFACES are
// printed from the library's own rules and landscapes, and are handed to mount.

const STYLE = `
.stepsize-playground { margin: 1em 0; max-width: 640px; color: inherit; }
.stepsize-playground .picture { touch-action: manipulation; cursor: crosshair; }
.stepsize-playground legend { font-size: 1rem; font-weight: 600; margin: 0; }
.stepsize-playground fieldset { border: 0; margin: .8em 0 0; padding: 0; min-width: 0; }
.stepsize-playground .bar, .stepsize-playground .method { display: flex; flex-wrap: wrap; gap: .3em .9em; align-items: center; margin: .35em 0; }
.stepsize-playground .method { border-left: 4px solid var(--color, currentColor); padding-left: .6em; }
.stepsize-playground button { width: auto; }
.stepsize-playground label { display: inline-flex; gap: .4em; align-items: center; flex: 1 1 11em; min-width: 0; margin: 0; width: auto; }
.stepsize-playground label > span { white-space: nowrap; }
.stepsize-playground input[type=range] { flex: 1 1 5em; min-width: 3em; height: 2em; }
.stepsize-playground select, .stepsize-playground button { font: inherit; color: inherit; background: var(--pst-color-background, Canvas); border: 1px solid currentColor; border-radius: 4px; min-height: 2em; padding: .1em .6em; min-width: 0; }
.stepsize-playground button { cursor: pointer; }
.stepsize-playground output { font-variant-numeric: tabular-nums; min-width: 4.2em; }
.stepsize-playground .said { min-height: 3.2em; margin: .5em 0; font-variant-numeric: tabular-nums; }
.stepsize-playground .plan { display: block; width: 100%; height: auto; touch-action: none; cursor: crosshair; border: 1px solid; }
@media print { .stepsize-playground fieldset { display: none; } }
`;
const SVG = "http://www.w3.org/2000/svg";
const RACE = 2000, CLOSE = 1e-3;
const short = (x) => (Number.isFinite(x) ? Number(x.toPrecision(3)).toString() : "∞");

// The same noise for every method, and for every race from one start: a small generator with its seed in it.
function normals(seed) {
  let a = seed >>> 0;
  const uniform = () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

// A run of one method: where it is, its state, and the step it has come to.
export class Run {
  constructor(rule, told, surface, numbers, start) {
    Object.assign(this, { rule, surface, numbers, p: [...start], state: structuredClone(told.state), lr: told.lr, t: 0 });
  }
  step(noise, factor = 1) {
    const [, slope] = this.surface(this.p);
    const h = [...this.numbers];
    h[this.lr] *= factor;
    [this.p, ...this.state] = this.rule(this.p, slope.map((g, i) => g + noise[i]), ++this.t, this.state, h);
  }
  get height() {
    return this.surface(this.p)[0];
  }
  get lost() {
    return !this.p.every((x) => Math.abs(x) < 1e6);
  }
}

export function mount(key, RULES, SURFACES) {
  const el = document.querySelector(`.stepsize-playground[data-key="${key}"]:not([data-ready])`);
  if (!el) return;
  el.dataset.ready = "";
  const told = JSON.parse(el.querySelector("script").textContent);
  // Rates lie evenly by ratio.
  const { low, high, places } = told.slider;
  const toRate = (place) => Number((10 ** (low + ((high - low) * place) / places)).toPrecision(2));
  const toPlace = (rate) => Math.round((places * (Math.log10(rate) - low)) / (high - low));
  const make = (tag, parent, properties = {}) => parent.appendChild(Object.assign(document.createElement(tag), properties));
  make("style", el, { textContent: STYLE });
  const picture = el.querySelector(".picture");
  const [ground, paths, marks] = ["ground", "paths", "marks"].map((part) => picture.querySelector(`[data-${part}]`));

  // --- what is chosen: it can be read from the address, and is written there -------------------------------------
  const none = "–";
  const row = (name) => ({ name, rate: told.rules[name]?.rates[state.landscape] ?? 0.1, moment: momentOf(name) });
  function momentOf(name) {
    const rule = told.rules[name];
    return rule && rule.moment !== null ? rule.numbers[rule.moment] : null;
  }
  const state = { landscape: told.landscape, start: [...told.surfaces[told.landscape].start], speed: 20, plan: null };
  state.methods = [0, 1, 2, 3].map((k) => row(told.methods[k] ?? none));
  if (told.schedule) state.plan = [...told.plans.cosine];
  const prefix = `#${told.name}:`;

  function read() {
    const hash = decodeURIComponent(location.hash);
    if (!hash.startsWith(prefix)) return false;
    const given = new Map(hash.slice(prefix.length).split(";").map((part) => part.split("=")));
    if (told.surfaces[given.get("on")]) state.landscape = given.get("on");
    state.start = [...told.surfaces[state.landscape].start];
    const start = (given.get("from") ?? "").split(",").map(Number);
    if (start.length === 2 && start.every(Number.isFinite)) state.start = start;
    for (let k = 0; k < 4; k++) {
      const [name, rate, moment] = (given.get(`m${k + 1}`) ?? "").split(",");
      if (!told.rules[name]) {
        if (name === none) state.methods[k] = row(none);
        continue;
      }
      state.methods[k] = row(name);
      if (Number(rate) > 0) state.methods[k].rate = Number(rate);
      if (moment && momentOf(name) !== null && Number(moment) >= 0 && Number(moment) < 1) state.methods[k].moment = Number(moment);
    }
    const plan = (given.get("plan") ?? "").split(",").map(Number);
    if (state.plan && plan.length === 11 && plan.every((x) => x >= 0 && x <= 1))
      state.plan = state.plan.map((_, i) => between(plan, i / 10));
    return true;
  }
  const between = (values, at) => {
    const left = Math.min(Math.floor(at), values.length - 2);
    return values[left] + (values[left + 1] - values[left]) * (at - left);
  };
  let pending;
  function write() {
    clearTimeout(pending);
    // Browsers refuse more than a few writes of the address a second.
    pending = setTimeout(() => {
      const parts = [`on=${state.landscape}`, `from=${state.start.map((x) => x.toFixed(3)).join(",")}`];
      state.methods.forEach(({ name, rate, moment }, k) => parts.push(`m${k + 1}=${name === none ? none : [name, rate, ...(moment === null ? [] : [moment])].join(",")}`));
      if (state.plan) parts.push(`plan=${Array.from({ length: 11 }, (_, i) => state.plan[i * 10].toFixed(2)).join(",")}`);
      try {
        history.replaceState(history.state, "", prefix + parts.join(";"));
      } catch {} // A page in a sandbox has no address to write.
    }, 200);
  }

  // --- the controls ---------------------------------------------------------------------------------------------
  const said = make("p", el, { className: "said" });
  said.setAttribute("aria-live", "polite");
  const buttons = make("fieldset", el);
  const bar = make("div", buttons, { className: "bar" });
  const button = (text, action) => {
    const made = make("button", bar, { type: "button", textContent: text });
    made.addEventListener("click", action);
    return made;
  };
  const play = button("Play", () => (timer ? pause() : begin(state.speed)));
  button("Step", () => (pause(), step(1), draw(), say()));
  button("Race", race);
  button("Back to the start", () => (pause(), reset()));
  const choose = (parent, label, options, now, action) => {
    const box = make("label", parent);
    make("span", box, { textContent: label });
    const select = make("select", box);
    options.forEach(([value, text]) => make("option", select, { value, textContent: text }));
    select.value = now;
    select.addEventListener("input", () => action(select.value));
    return select;
  };
  const slide = (parent, label, min, max, stepBy, text, action) => {
    const box = make("label", parent);
    make("span", box, { textContent: label });
    const input = make("input", box, { type: "range", min, max, step: stepBy });
    const output = make("output", box);
    const show = (value) => {
      input.value = value;
      const words = text(Number(input.value));
      output.textContent = words;
      input.setAttribute("aria-valuetext", words);
    };
    input.addEventListener("input", () => action(Number(input.value)));
    return { box, input, show };
  };
  choose(bar, "speed", [[5, "5 steps a second"], [20, "20"], [60, "60"], [300, "300"]], 20, (value) => {
    state.speed = Number(value);
    if (timer) begin(state.speed);
  });

  const place = make("fieldset", el);
  const where = make("div", place, { className: "bar" });
  const surfaces = choose(where, "landscape", Object.entries(told.surfaces).map(([name, { title }]) => [name, title]), state.landscape, (name) => {
    state.landscape = name;
    state.start = [...told.surfaces[name].start];
    state.methods = state.methods.map((method) => ({ ...row(method.name), moment: method.moment }));
    landscape();
    changed();
  });
  surfaces.parentElement.style.flexBasis = "100%";
  const starts = ["x", "y"].map((axis, i) =>
    slide(where, `start ${axis}`, 0, 200, 1, () => state.start[i].toFixed(2), (value) => {
      const [low, high] = told.surfaces[state.landscape][axis];
      state.start[i] = low + ((high - low) * value) / 200;
      changed();
    }),
  );

  const fields = make("fieldset", el);
  make("legend", fields, { textContent: "Methods" });
  const rows = state.methods.map((_, k) => {
    const box = make("div", fields, { className: "method" });
    const names = [[none, "none"], ...Object.keys(told.rules).map((name) => [name, name])];
    const select = choose(box, `${k + 1}`, names, none, (name) => {
      state.methods[k] = row(name);
      changed();
    });
    const rate = slide(box, "rate", 0, places, 1, (at) => short(toRate(at)), (at) => {
      state.methods[k].rate = toRate(at);
      changed();
    });
    const moment = slide(box, "moment", 0, 0.995, 0.005, (value) => value.toFixed(3), (value) => {
      state.methods[k].moment = value;
      changed();
    });
    return () => {
      const { name, rate: now, moment: momentum } = state.methods[k];
      const rule = told.rules[name];
      select.value = name;
      box.style.setProperty("--color", rule?.color ?? "transparent");
      rate.box.hidden = !rule;
      rate.box.style.display = rule ? "" : "none";
      rate.show(toPlace(now));
      moment.box.style.display = momentum === null ? "none" : "";
      if (momentum !== null) moment.show(momentum), (moment.box.firstChild.textContent = rule.momentName);
    };
  });

  // --- the rate's own course --------------------------------------------------------------------------------------
  const LENGTH = 300;
  let showPlan = () => {};
  if (state.plan) {
    const box = make("fieldset", el);
    make("legend", box, { textContent: `The rate over ${LENGTH} steps: draw it here` });
    const field = document.createElementNS(SVG, "svg");
    field.setAttribute("viewBox", "0 0 640 160");
    field.setAttribute("class", "plan");
    field.setAttribute("role", "img");
    const line = field.appendChild(document.createElementNS(SVG, "path"));
    Object.entries({ fill: "none", stroke: "currentColor", "stroke-width": 3 }).forEach(([name, value]) => line.setAttribute(name, value));
    const now = field.appendChild(document.createElementNS(SVG, "path"));
    Object.entries({ stroke: "currentColor", "stroke-dasharray": "4 4" }).forEach(([name, value]) => now.setAttribute(name, value));
    box.append(field);
    const controls = make("div", box, { className: "bar" });
    const presets = choose(controls, "begin with", [["", "your own"], ...Object.keys(told.plans).map((name) => [name, name])], "", (name) => {
      if (name) state.plan = [...told.plans[name]];
      changed();
    });
    let at = 50;
    const moment = slide(controls, "at step", 0, 100, 5, (value) => String((value * LENGTH) / 100), (value) => ((at = value), showPlan()));
    const height = slide(controls, "rate there", 0, 1, 0.01, (value) => value.toFixed(2), (value) => bend(at, value));
    // A tent: the line is drawn to the value here, and left as it is ten steps away.
    const bend = (middle, value) => {
      for (let i = Math.max(0, middle - 9); i <= Math.min(100, middle + 9); i++) {
        const near = 1 - Math.abs(i - middle) / 10;
        state.plan[i] += (value - state.plan[i]) * near;
      }
      presets.value = "";
      changed();
    };
    let last;
    const pull = (event) => {
      const { left, top, width, height } = field.getBoundingClientRect();
      const i = Math.round(Math.min(1, Math.max(0, (event.clientX - left) / width)) * 100);
      const value = Math.min(1, Math.max(0, 1 - (event.clientY - top) / height));
      const [from, old] = last ?? [i, value];
      for (let j = Math.min(from, i); j <= Math.max(from, i); j++)
        state.plan[j] = from === i ? value : old + ((value - old) * (j - from)) / (i - from);
      last = [i, value];
      presets.value = "";
      changed();
    };
    field.addEventListener("pointerdown", (event) => (field.setPointerCapture(event.pointerId), (last = undefined), pull(event)));
    field.addEventListener("pointermove", (event) => event.buttons && pull(event));
    showPlan = () => {
      line.setAttribute("d", `M${state.plan.map((value, i) => `${i * 6.4} ${(160 * (1 - value)).toFixed(1)}`).join("L")}`);
      const x = (Math.min(time, LENGTH) * 640) / LENGTH;
      now.setAttribute("d", `M${x} 0V160`);
      field.setAttribute("aria-label", `The rate's course: ${[0, 25, 50, 75, 100].map((i) => `${state.plan[i].toFixed(2)} at step ${(i * LENGTH) / 100}`).join(", ")}.`);
      moment.show(at);
      height.show(state.plan[at]);
    };
  }
  const factor = (t) => (state.plan ? between(state.plan, Math.min(100, (t * 100) / LENGTH)) : 1);

  // --- running ----------------------------------------------------------------------------------------------------
  let runs = [], lines = [], time = 0, draw_noise = normals(1), timer, due = 0;
  const point = ([a, b]) => {
    const { x, y, size } = told.surfaces[state.landscape];
    const clip = (v, length) => Math.max(-length, Math.min(2 * length, v));
    return [clip(((a - x[0]) / (x[1] - x[0])) * size[0], size[0]), clip(((y[1] - b) / (y[1] - y[0])) * size[1], size[1])];
  };
  function landscape() {
    const surface = told.surfaces[state.landscape];
    picture.setAttribute("viewBox", `0 0 ${surface.size.join(" ")}`);
    ground.innerHTML = surface.ground;
    marks.innerHTML = surface.marks;
    surfaces.value = state.landscape;
  }
  function reset() {
    time = 0;
    draw_noise = normals(1);
    paths.replaceChildren();
    runs = [];
    lines = [];
    for (const { name, rate, moment } of state.methods) {
      const rule = told.rules[name];
      if (!rule) continue;
      const numbers = [...rule.numbers];
      numbers[rule.lr] = rate;
      if (moment !== null) numbers[rule.moment] = moment;
      runs.push(Object.assign(new Run(RULES[name], rule, SURFACES[state.landscape], numbers, state.start), { name }));
      const line = paths.appendChild(document.createElementNS(SVG, "polyline"));
      const head = paths.appendChild(document.createElementNS(SVG, "circle"));
      Object.entries({ stroke: rule.color, "stroke-width": 2.5, "stroke-dasharray": rule.dash, "data-line": name }).forEach(([k, v]) => line.setAttribute(k, v));
      Object.entries({ r: 5.5, fill: rule.color }).forEach(([k, v]) => head.setAttribute(k, v));
      lines.push({ line, head, drawn: 0, path: [[...state.start]] });
    }
    const [x, y] = point(state.start);
    const ring = marks.querySelector("[data-start]");
    ring?.setAttribute("cx", x);
    ring?.setAttribute("cy", y);
    draw();
    say();
  }
  function step(count) {
    const size = told.surfaces[state.landscape].noise;
    for (let n = 0; n < count; n++) {
      const noise = [size * draw_noise(), size * draw_noise()];
      const now = factor(time);
      time++;
      runs.forEach((run, k) => {
        if (run.lost) return;
        run.step(noise, now);
        lines[k].path.push([...run.p]);
      });
    }
  }
  function draw() {
    for (const mine of lines) {
      for (; mine.drawn < mine.path.length; mine.drawn++) {
        if (!mine.path[mine.drawn].every(Number.isFinite)) continue;
        const [x, y] = point(mine.path[mine.drawn]);
        mine.line.points.appendItem(Object.assign(picture.createSVGPoint(), { x, y }));
        mine.head.setAttribute("cx", x);
        mine.head.setAttribute("cy", y);
      }
    }
    showPlan();
  }
  const ahead = (run) => run.height - told.surfaces[state.landscape].lowest;
  function say(result = "") {
    const heights = runs.map((run) => `${run.name} ${run.lost ? `diverged at step ${run.t}` : `${short(ahead(run))} above the lowest point`}`);
    said.textContent = `Step ${time}${result ? `. ${result}` : `: ${heights.join("; ") || "choose a method"}`}.`;
  }
  function pause() {
    cancelAnimationFrame(timer);
    timer = undefined;
    play.textContent = "Play";
    said.setAttribute("aria-live", "polite");
  }
  function begin(speed, finished = () => time >= (state.plan ? LENGTH : RACE)) {
    pause();
    if (finished()) reset();
    play.textContent = "Pause";
    said.setAttribute("aria-live", "off");
    let before;
    due = 0;
    el.dataset.frames = "0";
    const frame = (now) => {
      due += before === undefined ? 1 : ((now - before) / 1000) * speed;
      before = now;
      el.dataset.frames = String(Number(el.dataset.frames) + 1);
      const count = Math.min(Math.floor(due), 50);
      due -= count;
      step(count);
      draw();
      if (count) say();
      const result = finished();
      if (result || runs.every((run) => run.lost)) {
        pause();
        say(typeof result === "string" ? result : "");
      } else timer = requestAnimationFrame(frame);
    };
    timer = requestAnimationFrame(frame);
  }
  function race() {
    reset();
    const first = SURFACES[state.landscape](state.start)[0] - told.surfaces[state.landscape].lowest;
    const arrived = new Map();
    const most = state.plan ? LENGTH : RACE;
    begin(300, () => {
      for (const run of runs) if (!arrived.has(run) && (run.lost || ahead(run) <= CLOSE * first)) arrived.set(run, run.lost ? Infinity : run.t);
      if (arrived.size < runs.length && time < most) return false;
      const order = [...runs].sort((a, b) => (arrived.get(a) ?? most + 1) - (arrived.get(b) ?? most + 1));
      const told_of = order.map((run) => {
        const at = arrived.get(run);
        return `${run.name} ${at === undefined ? `not within ${most} steps` : at === Infinity ? "diverged" : `at step ${at}`}`;
      });
      return `To a thousandth of the first height: ${told_of.join("; ")}`;
    });
  }

  // --- the reader ---------------------------------------------------------------------------------------------------
  function show() {
    rows.forEach((refresh) => refresh());
    ["x", "y"].forEach((axis, i) => {
      const [low, high] = told.surfaces[state.landscape][axis];
      starts[i].show(Math.round((200 * (state.start[i] - low)) / (high - low)));
    });
    showPlan();
  }
  function changed() {
    pause();
    show();
    reset();
    write();
  }
  function from(event) {
    const { left, top, width, height } = picture.getBoundingClientRect();
    const { x, y } = told.surfaces[state.landscape];
    state.start = [x[0] + ((event.clientX - left) / width) * (x[1] - x[0]), y[1] - ((event.clientY - top) / height) * (y[1] - y[0])];
    changed();
  }
  picture.addEventListener("click", from);
  picture.addEventListener("pointermove", (event) => event.buttons && event.pointerType === "mouse" && from(event));
  // JupyterLab would take the arrow keys for its own shortcuts.
  for (const control of el.querySelectorAll("input, select, button")) control.dataset.lmSuppressShortcuts = "true";
  function start() {
    landscape();
    show();
    reset();
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches && !told.schedule) return void (step(60), draw(), say());
    step(state.plan ? LENGTH : 60);
    draw();
    say();
  }
  if (read()) el.scrollIntoView();
  start();
  addEventListener("hashchange", () => read() && start());
}
