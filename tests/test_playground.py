"""The playground moves its points as the rules do, and answers mouse, keyboard, address and reader."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from stepsize import landscapes, playground
from stepsize.engines import print_js
from stepsize.rules import RULES

SURFACES = {name: surface for name, surface in landscapes.LANDSCAPES.items() if surface.dimensions == 2}
STEPS = 40
WALK = """
const rule = %s, surface = %s, told = %s;
let p = told.start, state = told.state, path = [p];
for (let t = 1; t <= told.steps; t++) {
  [p, ...state] = rule(p, surface(p)[1], t, state, told.numbers);
  path.push(p);
}
return path;
"""


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """Two playgrounds in a file, one with a schedule to draw."""
    folder = tmp_path_factory.mktemp("playground")
    figures = playground.playground("sgd", "adam"), playground.playground("sgdm", schedule=True, name="plan")
    body = "".join(figure.html() for figure in figures)
    (folder / "page.html").write_text(f'<!doctype html><meta charset="utf-8"><body>{body}')
    browser.get_log("browser")
    return browser, (folder / "page.html").as_uri()


def opened(page, fragment=""):
    browser, address = page
    browser.get("about:blank")
    browser.get(address + fragment)
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    return browser


def on(browser, script, *args, figure=0):
    """Run a script with ``box``, one of the two playgrounds, and helpers that act as a reader does."""
    return browser.execute_script(
        f"const box = document.querySelectorAll('.stepsize-playground')[{figure}];"
        "const button = name => [...box.querySelectorAll('button')].find(b => b.textContent === name);"
        "const set = (input, value) => { input.value = value; input.dispatchEvent(new Event('input')); };"
        "const said = () => box.querySelector('.said').textContent;"
        "const paths = () => [...box.querySelectorAll('polyline')].map(l => l.getAttribute('points') ?? '')"
        "  .concat([...box.querySelectorAll('polyline')].map(l => l.points.length)).join();" + script,
        *args,
    )


@pytest.mark.parametrize("name", RULES)
def test_rule_in_javascript_walks_as_the_rule_does(browser, name):
    browser.get("about:blank")
    rule = RULES[name]
    told = playground._rule(rule)
    for surface in SURFACES.values():
        lr = playground.best_rates(name)[surface.name]
        numbers = [lr if place == told["lr"] else x for place, x in enumerate(told["numbers"])]
        given = {"start": list(surface.start), "state": told["state"], "numbers": numbers, "steps": STEPS}
        source = WALK % (
            print_js.rule_source(rule, rule.defaults, 2),
            print_js.landscape_source(surface),
            json.dumps(given),
        )
        path = torch.tensor(browser.execute_script(source), dtype=torch.float64)
        still = replace(surface, noise=0.0)
        expected = landscapes.trajectory(rule, still, steps=STEPS, lr=lr)
        torch.testing.assert_close(path, expected, rtol=1e-6, atol=1e-9)


def test_rates_begin_at_the_best_of_the_slider_and_not_all_at_one():
    for name in ("sgd", "adam", "novograd"):
        rates = playground.best_rates(name)
        assert rates.keys() == SURFACES.keys() and len(set(rates.values())) > 1
        for surface, lr in rates.items():
            ends = [
                float(SURFACES[surface](landscapes.trajectory(name, surface, steps=80, lr=rate)[-10:]).mean())
                for rate in (lr, lr / 10)
            ]
            assert ends[0] <= ends[1], f"{name} on {surface} is better at a tenth of the rate"


def test_first_state_shows_a_path_for_each_method(page):
    browser = opened(page)
    counts = on(browser, "return [...box.querySelectorAll('polyline')].map(l => l.points.length)")
    assert counts == [61, 61]
    assert "Step 60: sgd" in on(browser, "return said()")


def test_it_steps_plays_and_goes_back(page):
    browser = opened(page)
    assert on(browser, "button('Back to the start').click(); return said()").startswith("Step 0:")
    assert on(browser, "button('Step').click(); button('Step').click(); return said()").startswith("Step 2:")
    on(browser, "button('Play').click()")
    browser.execute_async_script("setTimeout(arguments[0], 700)")
    assert on(browser, "return button('Pause') !== undefined")
    on(browser, "button('Pause').click()")
    assert int(on(browser, "return said()").split()[1].rstrip(":")) > 2


def test_a_race_names_who_arrived_and_when(page):
    browser = opened(page)
    on(browser, "button('Race').click()")
    browser.execute_async_script(
        "const wait = () => document.querySelector('.said').textContent.includes('thousandth')"
        " ? arguments[0]() : setTimeout(wait, 100); wait()"
    )
    said = on(browser, "return said()")
    assert "To a thousandth of the first height:" in said and "sgd" in said and "adam" in said
    assert "at step" in said


def test_each_control_moves_something(page):
    browser = opened(page)
    count = on(browser, "return box.querySelectorAll('input[type=range]').length")
    shown = [n for n in range(count) if on(browser, VISIBLE, n)]
    assert len(shown) == 5, "two coordinates of the start, two rates, one moment"
    for n in shown:
        before, after = on(browser, MOVED, n)
        assert before != after, f"slider {n} changes nothing"
        assert on(browser, "return box.querySelectorAll('input[type=range]')[arguments[0]].ariaValueText", n)


VISIBLE = "return box.querySelectorAll('input[type=range]')[arguments[0]].checkVisibility()"
MOVED = """
const input = box.querySelectorAll('input[type=range]')[arguments[0]];
const ten = () => { for (let k = 0; k < 10; k++) button('Step').click(); return paths(); };
button('Back to the start').click();
const before = ten();
set(input, Number(input.value) > (Number(input.max) + Number(input.min)) / 2 ? input.min : input.max);
return [before, ten()];
"""


def test_click_sets_the_start(page):
    browser = opened(page)
    before = on(browser, "return box.querySelector('[data-start]').getAttribute('cx')")
    on(
        browser,
        "const picture = box.querySelector('.picture'), { left, top } = picture.getBoundingClientRect();"
        "picture.dispatchEvent(new MouseEvent('click', { clientX: left + 100, clientY: top + 80, bubbles: true }));",
    )
    assert on(browser, "return box.querySelector('[data-start]').getAttribute('cx')") != before


def test_address_keeps_the_state_and_brings_it_back(page):
    browser = opened(page)
    on(
        browser,
        "set(box.querySelectorAll('select')[1], 'beale'); set(box.querySelectorAll('select')[3], 'novograd');",
    )
    browser.execute_async_script("setTimeout(arguments[0], 400)")
    fragment = browser.execute_script("return location.hash")
    assert "on=beale" in fragment and "m2=novograd," in fragment
    told = "return [...box.querySelectorAll('select')].map(s => s.value)"
    before = on(browser, told)
    assert on(opened(page, fragment), told) == before


def test_address_that_makes_no_sense_is_left_aside(page):
    browser = opened(page, "#playground:on=nowhere;from=a,b;m1=nothing,-3;m2=adam,x,7")
    assert on(browser, "return [...box.querySelectorAll('select')].map(s => s.value)")[1] == "quadratic"
    assert "NaN" not in on(browser, "return said()")


def test_schedule_drawn_by_hand_changes_the_path(page):
    browser = opened(page)
    draw = """
    const field = box.querySelector('.plan'), { left, top, width, height } = field.getBoundingClientRect();
    field.setPointerCapture = () => {};
    const at = (type, x, y) => field.dispatchEvent(new PointerEvent(type,
      { clientX: left + x * width, clientY: top + y * height, buttons: 1, pointerId: 1, bubbles: true }));
    const ten = () => { for (let k = 0; k < 60; k++) button('Step').click(); return paths(); };
    button('Back to the start').click();
    const before = ten();
    at('pointerdown', 0, .9); at('pointermove', .5, .9); at('pointermove', 1, .1);
    return [before, ten(), field.getAttribute('aria-label')];
    """
    before, after, label = on(browser, draw, figure=1)
    assert before != after
    assert "0.10 at step 0" in label and "0.90 at step 300" in label


def test_schedule_can_be_bent_by_keyboard_and_taken_from_the_library(page):
    browser = opened(page)
    label = "box.querySelector('.plan').getAttribute('aria-label')"
    script = f"const before = {label}; set(box.querySelectorAll('select')[6], 'constant'); return [before, {label}]"
    before, constant = on(browser, script, figure=1)
    assert "1.00 at step 300" in constant and before != constant
    bent = on(browser, f"set([...box.querySelectorAll('input')].at(-1), 0.2); return {label}", figure=1)
    assert "0.20 at step 150" in bent


def test_plans_are_those_of_the_schedules():
    plan = playground._plan("cosine")
    assert plan[0] == 1 and plan[-1] == 0 and all(a >= b for a, b in pairwise(plan))
    assert max(playground._plan("warm_restarts")[25:27]) == 1


def test_frames_come_as_fast_as_the_screen(page):
    """Printed, and not held to a number: that depends on the machine."""
    browser = opened(page)
    on(browser, "set(box.querySelectorAll('select')[4], 'novograd'); set(box.querySelectorAll('select')[5], 'sgdm');")
    on(browser, "set(box.querySelectorAll('select')[0], '300'); button('Play').click()")
    browser.execute_async_script("setTimeout(arguments[0], 1000)")
    frames = int(on(browser, "return box.dataset.frames"))
    print(f"\nfour methods at 300 steps a second: {frames} frames in the first second")
    assert frames > 1


def test_wrong_arguments_are_refused():
    with pytest.raises(KeyError, match="no landscape named 'quadratik'"):
        playground.playground(landscape="quadratik")
    with pytest.raises(KeyError, match="no rule named 'adm'"):
        playground.playground("adm")
    with pytest.raises(ValueError, match="four at most, got 5"):
        playground.playground(*["sgd"] * 5)
    with pytest.raises(ValueError, match="only two can be printed"):
        print_js.landscape_source(landscapes.get("parabola"))
