"""Tests of the checker: every mistake is named, two at once as well, and whatever a student hands in gets a sentence.

Running this file writes the table of what is named to ``_build/named.md``.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from bs4 import BeautifulSoup
from stepsize import check
from stepsize.check import check_optimizer
from stepsize.laws import gradients, known, near, path, settings
from stepsize.rules import RULES

TABLE = Path(__file__).parents[1] / "_build" / "named.md"
MISTAKES = [(rule, d) for rule in RULES.values() for d in rule.deviations.values() if d.kind == "mistake"]
# A mistake that gives a state another shape is told by that shape, before any path is walked.
TOLD_BY_SHAPE = {("nd_adam", "per-element"), ("novograd", "per-element")}
each_mistake = pytest.mark.parametrize(("rule", "mistake"), MISTAKES, ids=[d.rule.name for _, d in MISTAKES])
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)


def adam(p, g, t, m, v, *, lr, betas, eps, weight_decay=0.0):
    beta1, beta2 = betas
    g = g + weight_decay * p
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return p - lr * m / (1 - beta1**t) / ((v / (1 - beta2**t)).sqrt() + eps), m, v


def sgd(p, g, t, *, lr):
    return p - lr * g


class OwnSGD(torch.optim.Optimizer):
    """What a student would write."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self.move(p, group)
        return loss

    def move(self, p, group):
        p -= group["lr"] * p.grad


class OwnMomentum(OwnSGD):
    def __init__(self, params, lr=0.1, momentum=0.9):
        super().__init__(params, lr)
        for group in self.param_groups:
            group.setdefault("momentum", momentum)

    def move(self, p, group):
        velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
        velocity.mul_(group["momentum"]).add_(p.grad, alpha=group["lr"])
        p -= velocity


# --- named ----------------------------------------------------------------------------------------------------------


@each_rule
def test_rule_itself_is_right(rule):
    verdict = check(rule.function, against=rule.name)
    assert verdict.ok, verdict


@functools.cache
def verdict_on(rule, mistake):
    return check(RULES[rule].deviations[mistake].rule.function, against=rule)


@each_mistake
def test_mistake_is_named(rule, mistake):
    verdict = verdict_on(rule.name, mistake.name)
    assert not verdict.ok
    if (rule.name, mistake.name) in TOLD_BY_SHAPE:
        assert "must have the shape" in verdict.says
        return
    assert verdict.mistake, verdict
    if verdict.mistake != mistake.name:
        same_path(rule, mistake.rule, rule.deviations[verdict.mistake].rule)
        return
    assert verdict.hint == mistake.hint and mistake.hint in verdict.says


def same_path(rule, one, other):
    """Two mistakes may be the same mistake."""
    p, gs = torch.randn(3, dtype=torch.float64), gradients(12, 3)
    hyper = settings(rule)["visible"]
    near(path(one, p, gs, known(one, hyper)), path(other, p, gs, known(other, hyper)), 1e-9)


@pytest.mark.parametrize("name", ["sgdm", "adam", "novograd"])
def test_two_mistakes_at_once_are_named(name):
    """Where the edits do not touch the same words: as the pair, or as what walks the same path."""
    rule, named, of = RULES[name], 0, 0
    mistakes = [d for d in rule.deviations.values() if d.kind == "mistake"]
    # One in six: all of the pairs would take minutes.
    for k, (a, b) in enumerate(itertools.combinations(mistakes, 2)):
        if k % 6 or a.changes.keys() & b.changes.keys():
            continue
        both = a.rule.changed(f"{name}:both", b.changes)
        try:
            verdict = check(both.function, against=name)
        except ValueError:
            continue  # One edit has taken away the other's words.
        assert not verdict.ok
        of += 1
        named += verdict.mistake is not None or "must have the shape" in verdict.says
    assert of >= 3 and named / of >= 0.9, f"{named} of {of}"


def test_other_method_is_told_by_its_name():
    def other(p, g, t, m, v, *, lr, betas, eps, weight_decay):
        new, m, v = adam(p, g, t, m, v, lr=lr, betas=betas, eps=eps)
        return new - lr * weight_decay * p, m, v

    verdict = check(other, against="adam")
    assert verdict.mistake == "decay-after"
    heavy = check(lambda p, g, t, m, *, lr, momentum: (p - (momentum * m + lr * g), momentum * m + lr * g), "nag")
    assert heavy.mistake in ("sgdm", "plain-momentum"), heavy


def test_paper_s_own_form_is_told_where_a_library_s_is_asked_for():
    verdict = check(RULES["adamw"].function, against="adamw:torch")
    assert verdict.mistake == "adamw", verdict


def test_share_of_the_named():
    """Writes the table, and a line to the screen."""
    rows = [["rule", "mistake", "what the checker says it is"], ["---"] * 3]
    for rule, mistake in MISTAKES:
        verdict = verdict_on(rule.name, mistake.name)
        rows.append([rule.name, mistake.name, verdict.mistake or verdict.says.splitlines()[0]])
    unnamed = sum(row[2] not in RULES[row[0]].deviations for row in rows[2:])
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n")
    print(f"\n{len(MISTAKES)} mistakes, {len(MISTAKES) - unnamed} named, {unnamed} told by the shape of a state")
    assert unnamed == len(TOLD_BY_SHAPE)


# --- where it departs -----------------------------------------------------------------------------------------------


def test_verdict_says_the_step_what_was_expected_and_what_came():
    def late(p, g, t, *, lr):
        return p - lr * g * (1 if t < 4 else 2)

    verdict = check(late, against="sgd", seed=3)
    assert (verdict.ok, verdict.step, verdict.mistake) == (False, 4, None)
    assert "step 4" in str(verdict) and "expected [" in str(verdict) and "moves 2 times as far" in verdict.hint
    assert verdict.expected.shape == verdict.got.shape == (3,)


def test_gradients_are_drawn_afresh_and_a_seed_repeats_them():
    def wrong(p, g, t, *, lr):
        return p + lr * g

    first, again, seeded, repeated = (check(wrong, "sgd", seed=seed) for seed in (None, None, 7, 7))
    assert not torch.equal(first.expected, again.expected)
    assert torch.equal(seeded.expected, repeated.expected)


def test_seed_for_grading_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("STEPSIZE_CHECK_SEED", "11")
    first, again = (check(lambda p, g, t, *, lr: p + lr * g, "sgd") for _ in range(2))
    assert torch.equal(first.expected, again.expected)


def test_copied_numbers_do_not_pass():
    seen = []

    def recorder(p, g, t, *, lr):
        seen.append(p - lr * g)
        return seen[-1]

    assert check(recorder, "sgd").ok
    replay = iter(seen)
    assert not check(lambda p, g, t, *, lr: next(replay), "sgd").ok


def test_right_path_with_a_wrong_state_is_not_right():
    def doubled(p, g, t, m, v, **hyper):
        new, m, v = adam(p, g, t, m / 2, v, **hyper)
        return new, 2 * m, v

    verdict = check(doubled, "adam")
    assert not verdict.ok and "the state exp_avg that you return at step 1" in verdict.says


def test_rounding_to_float32_is_told():
    def rounded(p, g, t, *, lr):
        return (p.float() - lr * g.float()).double()

    assert "float32" in check(rounded, "sgd").hint


def test_step_that_only_works_in_float64_is_told():
    verdict = check(lambda p, g, t, *, lr: p - torch.full_like(p, lr, dtype=torch.float64) * g, "sgd")
    assert not verdict.ok and "in float32 it is not" in verdict.says and "became torch.float64" in verdict.says


# --- what a student may hand in -------------------------------------------------------------------------------------


def test_step_for_plain_numbers_is_checked_number_by_number():
    def plain(p, g, t, m, v, *, lr, betas, eps):
        beta1, beta2 = betas
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        return p - lr * m / (1 - beta1**t) / (math.sqrt(v / (1 - beta2**t)) + eps), m, v

    assert check(plain, "adam").ok

    def wrong(p, g, t, m, v, *, lr, betas, eps):
        new, m, v = plain(p, g, t, m, v, lr=lr, betas=betas, eps=eps)
        return 2 * p - new, m, v

    assert check(wrong, "adam").mistake == "ascent"


def test_states_may_be_left_out_by_name():
    def plain(p, g, t, v, m, *, lr, betas, eps):
        v = torch.where(v == 0, g.norm() ** 2, betas[1] * v + (1 - betas[1]) * g.norm() ** 2)
        m = betas[0] * m + g / (v.sqrt() + eps)
        return p - lr * m, v, m

    verdict = check(plain, "novograd", state=("exp_avg_sq", "exp_avg"))
    assert verdict.ok, verdict
    assert "it must be step(p, g, t, exp_avg_sq, max_exp_avg_sq, exp_avg" in check(plain, "novograd").says


def test_hyper_parameters_that_a_step_lacks_stay_as_the_exercise_says():
    assert check(lambda p, g, t: p - 0.3 * g, "sgd", hyper={"lr": 0.3}).ok
    assert not check(lambda p, g, t: p - 0.3 * g, "sgd").ok


def by_hand():
    return {"start": [1.0], "gradients": [[1.0], [2.0], [-1.0]], "hyper": {"lr": 0.5}}


def test_path_by_hand_is_checked_as_numbers():
    assert check([[0.5], [-0.5], [0.0]], "sgd", **by_hand()).ok
    verdict = check(torch.tensor([[0.5], [-0.5], [-1.0]]), "sgd", **by_hand())
    assert (verdict.ok, verdict.step) == (False, 3)
    assert check([[1.5], [2.5], [2.0]], "sgd", **by_hand()).mistake == "ascent"
    assert "must have (3, 1)" in check([0.5], "sgd", **by_hand()).says
    assert "list, of numbers" in check("abc", "sgd", **by_hand()).says


ODD = {
    "no-step": (3, "is the number 3"),
    "nothing": (None, "is nothing"),
    "too-few": (lambda p, g: p, "Your step takes p, g; it must be step(p, g, t, *, lr, weight_decay)"),
    "unknown-keyword": (lambda p, g, t, *, rate: p, "asks for 'rate', which sgd does not know"),
    "returns-nothing": (lambda p, g, t, *, lr: None, "must return new p; it returned nothing at step 1"),
    "two-values": (lambda p, g, t, *, lr: (p, p), "it returned 2 values at step 1"),
    "shape": (lambda p, g, t, *, lr: (p - lr * g)[:2], "must have the shape (3,); at step 1 it has (2,)"),
    "numpy": (lambda p, g, t, *, lr: (p - lr * g).numpy(), "must be a tensor of shape (3,)"),
    "error": (lambda p, g, t, *, lr: p - lr * nonsense, "NameError: name 'nonsense' is not defined"),  # noqa: F821
    "exit": (lambda p, g, t, *, lr: exit(), "stopped at step 1 with SystemExit"),
    "in-place": (lambda p, g, t, *, lr: p.sub_(lr * g), "Your step changes p itself, at step 1"),
    "ours": (lambda p, g, t, *, lr: RULES["sgd"](p, g, t, lr=lr), "uses the library's RULES"),
    "torch's": (lambda p, g, t, *, lr: torch.optim.SGD([p], lr=lr), "an optimizer of a library"),
    "rule": (RULES["sgd"], "the library's own sgd"),
}


@pytest.mark.parametrize("name", ODD)
def test_oddity_gets_a_sentence(name):
    handed, sentence = ODD[name]
    verdict = check(handed, against="sgd")
    assert not verdict.ok and sentence in verdict.says


def test_rule_called_by_a_back_door_is_refused():
    def borrowed(p, g, t, *, lr):
        return library(p, g, t, lr=lr)

    library = RULES["sgd"]
    assert "calls the library's own sgd" in check(borrowed, "sgd").says
    assert RULES["sgd"](torch.ones(1), torch.ones(1), 1)[0] < 1, "the rule works again afterwards"


def test_skeleton_is_told_to_begin():
    def skeleton(p, g, t, *, lr):
        raise NotImplementedError("write your answer here, and delete this line")

    assert check(skeleton, "sgd").says == "Not begun: write your answer here, and delete this line."


def test_endless_loop_ends_with_a_sentence():
    def forever(p, g, t, *, lr):
        while True:
            with suppress(Exception):
                t += 1

    before = time.monotonic()
    verdict = check(forever, "sgd", seconds=0.5)
    assert "still running after 0.5 s" in verdict.says
    assert time.monotonic() - before < 30


def test_memory_outside_the_states_is_told():
    count = itertools.count()

    def counts(p, g, t, *, lr):
        return p - lr * g * (1 + next(count))

    assert "remembers something" in check(counts, "sgd").says


def test_caller_s_mistakes_raise():
    with pytest.raises(KeyError, match="did you mean 'adam'"):
        check(adam, against="adm")
    with pytest.raises(KeyError, match="no state 'exp'"):
        check(adam, against="adam", state=("exp",))
    with pytest.raises(TypeError, match="has no 'rate'"):
        check(adam, against="adam", hyper={"rate": 1})
    with pytest.raises(ValueError, match="lr must be"):
        check(adam, against="adam", hyper={"lr": -1})


def test_notebook_shows_the_sentence_and_both_trajectories():
    shown = BeautifulSoup(check(lambda p, g, t, *, lr: p + lr * g, "sgd")._repr_html_(), "html.parser")
    assert "ascent" in shown.text
    assert "sgd ends at" in shown.img["alt"] and "yours ends at" in shown.img["alt"]
    assert shown.img["src"].startswith("data:image/png;base64,")


# --- optimizers -----------------------------------------------------------------------------------------------------


def test_optimizer_class_is_checked():
    assert check(OwnSGD, against="sgd").ok
    assert check_optimizer(OwnMomentum, against="sgdm").ok


def test_mistake_of_an_optimizer_class_is_named():
    class Up(OwnSGD):
        def move(self, p, group):
            p += group["lr"] * p.grad

    verdict = check_optimizer(Up, against="sgd")
    assert verdict.mistake == "ascent" and verdict.step == 1


def test_borrowed_optimizer_is_refused():
    from stepsize import optim

    class Mine(torch.optim.SGD):
        pass

    for cls in (Mine, torch.optim.SGD, optim.SGD):
        assert "borrows" in check(cls, against="sgd").says
    assert "is the number 3" in check_optimizer(3, against="sgd").says


class MovesTheIdle(OwnSGD):
    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    p.data.zero_()
        return loss


class OneRate(OwnSGD):
    def move(self, p, group):
        p -= self.param_groups[0]["lr"] * p.grad


class ForgetsItsVelocity(OwnMomentum):
    def __init__(self, params, lr=0.1, momentum=0.9):
        super().__init__(params, lr, momentum)
        self.velocity = {}

    def move(self, p, group):
        self.velocity[p] = group["momentum"] * self.velocity.get(p, 0) + group["lr"] * p.grad
        p -= self.velocity[p]


class CountsForAll(OwnSGD):
    """Adam with one count of steps for all of its parameters."""

    def __init__(self, params, lr=0.1, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, lr)
        for group in self.param_groups:
            group.update(betas=betas, eps=eps)
        self.steps = 0

    def move(self, p, group):
        self.steps += 1
        state = self.state[p] or self.state[p].update(m=torch.zeros_like(p), v=torch.zeros_like(p)) or self.state[p]
        new, *moments = adam(
            p, p.grad, self.steps, state["m"], state["v"], **{k: group[k] for k in ("lr", "betas", "eps")}
        )
        state.update(m=moments[0], v=moments[1])
        p.copy_(new)


class KeepsTheLoss(OwnSGD):
    def step(self, closure=None):
        super().step(closure)


class ChangesTheGradient(OwnSGD):
    def move(self, p, group):
        p -= p.grad.mul_(group["lr"])


@pytest.mark.parametrize(
    ("cls", "against", "sentence"),
    [
        (MovesTheIdle, "sgd", "a parameter whose grad is None was moved"),
        (CountsForAll, "adam", "two parameters, stepped together, do not walk as each does alone"),
        (OneRate, "sgd", "a group with its own lr was not moved by that lr"),
        (ForgetsItsVelocity, "sgdm", "saved by state_dict and loaded again"),
        (KeepsTheLoss, "sgd", "step(closure) did not return"),
        (ChangesTheGradient, "sgd", "Your step changes the gradient, at step 1"),
    ],
)
def test_bad_manners_are_told(cls, against, sentence):
    verdict = check(cls, against=against)
    assert not verdict.ok and sentence in verdict.says


def test_page_shows_what_the_checker_says():
    page = (Path(__file__).parents[1] / "book" / "checker.md").read_text("utf-8")
    code, said = page.split("```python\n")[1].split("```")[0], page.split("```text\n")[1].split("```")[0]
    names: dict = {}
    exec(code.replace("\ncheck(", "\nverdict = check("), names)
    assert str(names["verdict"]) == said.strip()
