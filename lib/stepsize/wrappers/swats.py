"""SWATS: Adam until its step is a steady multiple of the gradient, then SGD with that multiple as its rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import engines
from ..optim import RuleOptimizer, _signature, gradients
from ..rules import Rule, find
from .base import check_variant, variants, wide

# The paper's Adam adds epsilon before the correction; each variant has its own default of it.
ADAM: dict[str | None, Rule] = {
    variant: find("adam:tensorflow").changed(f"adam:swats-{variant or 'paper'}", {"eps=1e-8": f"eps={eps}"})
    for variant, eps in ((None, 1e-9), ("pytorch-optimizer", 1e-6), ("torch-optimizer", 1e-3))
}

# torch-optimizer scales the step in place, and it is the buffer: from the second step on the buffer is scaled too.
SHRINKING_SGD = find("sgdm:torch").changed(
    "sgdm:swats-torch-optimizer", {", momentum_buffer\n": ", where(t == 1, 1.0, 1 - momentum) * momentum_buffer\n"}
)

# What a group remembers of the projection (for all groups the first does), and of the switch once it has happened.
BEGIN: dict[str, Any] = {
    "adam_steps": 0,
    "projection": 0.0,
    "switched_at": None,
    "switch_rate": None,
    "switch_lr": None,
}

Part = tuple[dict[str, Any], list[Tensor], list[Tensor]]


class SWATS(RuleOptimizer):
    r"""Begin with Adam; when Adam's step says which rate SGD would need, switch to SGD with that rate, for good.

    Every step of Adam is projected on the gradient: :math:`\gamma_t` is the rate with which SGD's step, seen along
    Adam's, is as long as Adam's. When :math:`\gamma_t` is within ``tolerance`` of its average, that average becomes
    SGD's rate. Lengths and products run over *all* parameters of the optimizer, in all its groups: one
    :math:`\gamma`, one switch. ``switched_at`` says at which step that was (``None`` before), ``switch_rate`` the
    rate; both are in the groups, so that ``state_dict`` holds them.

    Defaults: ``lr=1e-3, betas=(0.9, 0.999), eps=1e-9, weight_decay=0, tolerance=None``. ``tolerance=None`` is
    ``eps``: the paper has one number for both, and near 1e-9 few paths ever meet it; raise it to switch early.
    The variants look at each tensor alone; the first to agree switches its group and writes its rate over ``lr``.
    ``weight_decay`` is L2, part of the gradient everywhere. ``betas[0]`` goes on as SGD's momentum; ``betas[1]``
    must be the same in all groups. After the switch a scheduler scales the found rate by what it makes of the
    ``lr`` at the switch: the paper leaves that to the user, this is our reading. As in both ports, the rate
    must be positive. A NaN or infinite gradient spoils its tensor and the average: then SWATS never switches.
    """

    name = "swats"
    paper = (
        "Keskar & Socher, Improving Generalization Performance by Switching from Adam to SGD, 2017, arXiv 1712.07628"
    )
    year = 2017
    equation = r"""
        p_t &= -\eta \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \frac{m_t}{\sqrt{v_t} + \epsilon} \\
        \theta_t &= \theta_{t-1} + p_t \\
        \gamma_t &= \frac{\lVert p_t \rVert^2}{-p_t \cdot g_t} \\
        \lambda_t &= \beta_2 \lambda_{t-1} + (1 - \beta_2) \gamma_t \\
        \Lambda &= \frac{\lambda_t}{1 - \beta_2^t} \quad \text{at the first } t > 1 \text{ with }
            \left| \frac{\lambda_t}{1 - \beta_2^t} - \gamma_t \right| < \epsilon; \text{ from then on} \\
        u_t &= \beta_1 u_{t-1} + g_t \\
        \theta_t &= \theta_{t-1} - (1 - \beta_1) \Lambda u_t
    """
    memory = "2n, after the switch n"
    deviations = variants(
        {
            "pytorch-optimizer": "With two tensors of different scale: how many rates does it compare, and when?",
            "torch-optimizer": "As pytorch-optimizer; then give SGD a constant gradient: do its steps go on growing?",
        }
    )

    rule_name = "adam"

    __signature__ = _signature({**ADAM[None].defaults, "tolerance": None})

    @property
    def switched_at(self) -> int | None:
        """The step of Adam after which the first group switched, counted from 1, or ``None``."""
        return min((group["switched_at"] for group in self.param_groups if group["switched_at"]), default=None)

    def rule_of(self, group: dict[str, Any]) -> Rule:
        check_variant("swats", group["variant"], self.deviations)
        return ADAM[group["variant"]]

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        tolerance = group["tolerance"]
        if tolerance is not None and not 0 <= tolerance < math.inf:
            raise ValueError(f"tolerance must be None, or 0 or more, got {tolerance!r}")
        beta2s = {other["betas"][1] for other in [*self.param_groups, group] if other["variant"] is None}
        if len(beta2s) > 1:
            raise ValueError(
                f"betas[1] must be the same in every group, for one average over all, got {sorted(beta2s)}"
            )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group at any time; after the switch it begins with SGD."""
        super().add_param_group(param_group)
        *others, added = [group for group in self.param_groups if group["variant"] is None] or [param_group]
        for name, value in BEGIN.items():
            added.setdefault(name, others[0][name] if others else value)
        if others and added["switched_at"] is not None:
            added["switch_lr"] = float(added["lr"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of Adam or of SGD; return what ``closure`` returns, called with gradients on."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        whole: list[Part] = []
        for group in self.param_groups:
            params, grads = gradients(group)
            if group["variant"] is None:
                whole.append((group, params, grads))
                continue
            for p, g in zip(params, grads, strict=True):
                self._advance([(group, [p], [g])], self.state[p])
        if any(params for _, params, _ in whole):
            self._advance(whole, whole[0][0])
        return loss

    def _advance(self, parts: list[Part], memory: dict[str, Any]) -> None:
        """Move ``parts``, over which one rate is sought together; ``memory`` holds its average."""
        first = parts[0][0]
        if first["switched_at"] is not None:
            for part in parts:
                self._sgd(*part)
            return
        products = [product for part in parts for product in self._adam(*part)]
        square, along = map(math.fsum, zip(*torch.stack([x.to(products[0]) for x in products]).tolist(), strict=True))
        memory["adam_steps"] = steps = memory.get("adam_steps", 0) + 1
        beta2 = float(first["betas"][1])
        if along != 0:
            rate = square / -along
            memory["projection"] = beta2 * memory.get("projection", 0.0) + (1 - beta2) * rate
            average = memory["projection"] / (1 - beta2**steps)
            if steps > 1 and average > 0 and abs(average - rate) < _tolerance(first, rate):
                for group, _, _ in parts:
                    self._switch(group, steps, average)

    def _adam(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """Take Adam's step; for each tensor, its displacement times itself and times the gradient."""
        grads = [wide(g) + group["weight_decay"] * wide(p) for p, g in zip(params, grads, strict=True)]
        # From zero and without decay, where the rule leads is the displacement, to the last bit.
        moves = [torch.zeros_like(g) for g in grads]
        rule = self.rule_of(group)
        hyper = {name: group[name] for name in rule.defaults} | {"weight_decay": 0.0}
        engines.step(group["engine"], rule, moves, grads, [self.state[p] for p in params], hyper)
        for p, move in zip(params, moves, strict=True):
            p.add_(move)
        return [torch.stack([(move * move).sum(), (move * g).sum()]) for move, g in zip(moves, grads, strict=True)]

    def _switch(self, group: dict[str, Any], step: int, rate: float) -> None:
        if group["variant"] is not None:
            group["lr"] = rate
        group.update(switched_at=step, switch_rate=rate, switch_lr=float(group["lr"]))
        for p in group["params"]:
            self.state.pop(p, None)

    def _sgd(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        beta1 = group["betas"][0]
        rate = group["switch_rate"] * (float(group["lr"]) / group["switch_lr"])
        hyper = {"lr": (1 - beta1) * rate, "momentum": beta1, "dampening": 0.0, "weight_decay": group["weight_decay"]}
        rule = SHRINKING_SGD if group["variant"] == "torch-optimizer" else find("sgdm:torch")
        engines.step(group["engine"], rule, params, grads, [self.state[p] for p in params], hyper)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in BEGIN.items():
                group.setdefault(name, value)


def _tolerance(group: dict[str, Any], rate: float) -> float:
    if group["variant"] is not None:
        return 1e-8 + (group["eps"] if group["variant"] == "pytorch-optimizer" else 1e-6) * abs(rate)  # torch.allclose
    return group["eps"] if group["tolerance"] is None else group["tolerance"]
