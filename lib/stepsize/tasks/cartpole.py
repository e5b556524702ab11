"""Keep a pole upright by pushing its cart: reinforcement learning by the plain policy gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Batch, Data, Task, Tensors, task

EPISODES = 16
# Fixed episodes to measure on, for each part.
MEASURED = 32
# Steps at which an episode ends at the latest.
LIMIT = 500
UNITS = 64
# Metres and radians at which an episode ends; the speeds are of order one as they are.
SCALE = 2.4, 1.0, math.radians(12), 1.0


@task
class CartPole(Task):
    """gymnasium's CartPole-v1, by REINFORCE with rewards-to-go and a baseline.

    Data: none but gymnasium's dynamics. An episode is its start, uniform in [-0.05, 0.05] as in gymnasium,
    and the uniform numbers that draw its actions; a batch is 16 of them. It ends when the cart leaves
    its track, the pole leans by 12 degrees, or after 500 steps; the return is the number of steps. Model:
    the four observations, scaled by the bounds, 64 tanh units, the log-odds of a push to the right;
    385 parameters; the output's weights begin ten times smaller than LeCun's, so that both pushes are
    tried. Loss: one minus the mean return over 500. Its gradient is estimated without bias by the score
    of each action times what the episode brought from there on, less what the other 15 brought from that
    step on (the baseline). Metrics: ``train_loss``, the loss on 32 fixed episodes, ``val_return`` and
    ``test_return``, the mean return on 32 others each, actions drawn as in training. Pushing at random
    returns 22.
    """

    name = "cartpole"
    description = "CartPole-v1, policy gradient, batches of 16 episodes; mean return"
    metric = "test_return"
    metrics = ("train_loss", "val_return", "test_return")
    larger = ("val_return", "test_return")
    steps, seconds, target = 120, 4.0, 400.0
    packages = ("gymnasium",)

    def load(self) -> Data:
        """Starts and chances of the episodes to measure on, an episode a row."""
        return {part: self.episodes(MEASURED, self.generator(0, part)) for part in ("train", "val", "test")}

    @staticmethod
    def episodes(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """What chance there is in ``count`` episodes: starts (count, 4), and numbers in [0, 1) (count, 500)."""
        return torch.rand(count, 4, generator=random) * 0.1 - 0.05, torch.rand(count, LIMIT, generator=random)

    def init(self, seed: int) -> Tensors:
        random = self.generator(seed, "init")
        return {
            "hidden.weight": torch.randn(UNITS, 4, generator=random) * 4**-0.5,
            "hidden.bias": torch.zeros(UNITS),
            "output.weight": torch.randn(1, UNITS, generator=random) * UNITS**-0.5 * 0.1,
            "output.bias": torch.zeros(1),
        }

    def batches(self, seed: int) -> Iterator[Batch]:
        """Starts and chances of 16 episodes."""
        random = self.generator(seed, "episodes")
        while True:
            yield self.episodes(EPISODES, random)

    def loss(self, params: Tensors, batch: Batch) -> Tensor:
        (loss,) = losses({name: p[None] for name, p in params.items()}, *(x[None] for x in batch))
        return loss

    def gradient(self, params: Tensors, batch: Batch, carry: Tensors) -> tuple[Tensors, Tensor, Tensors]:
        """As in ``Task``, with the episodes of all runs played at once: that costs little more than those of one."""
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        lost = losses(leaves, *batch)
        grads = torch.autograd.grad(lost.sum(), list(leaves.values()))
        return dict(zip(leaves, grads, strict=True)), lost.detach(), carry

    def evaluate(self, params: Tensors) -> Tensors:
        return {name: value[0] for name, value in self.measure({name: p[None] for name, p in params.items()}).items()}

    @torch.no_grad()
    def measure(self, params: Tensors) -> Tensors:
        runs = len(params["output.bias"])
        starts, chances = (torch.cat(parts).expand(runs, -1, -1) for parts in zip(*self.data.values(), strict=True))
        _, _, on = play(params, starts, chances)
        train, val, test = on.sum(-1).split(MEASURED, dim=1)
        # A policy that is not a number pushes to the left, and would have a loss.
        nothing = 0 * sum(p.flatten(1).sum(1) for p in params.values())
        return {"train_loss": share_lost(train) + nothing, "val_return": val.mean(1), "test_return": test.mean(1)}


def policy(params: Any, seen: Any, tanh: Any = torch.tanh) -> Any:
    """Log-odds (n) of a push to the right for what is seen (n, 4), of one run or stacked, in torch or in numpy."""
    hidden = tanh(seen @ params["hidden.weight"].swapaxes(-1, -2) + params["hidden.bias"][..., None, :])
    return (hidden @ params["output.weight"].swapaxes(-1, -2))[..., 0] + params["output.bias"]


def share_lost(returns: Tensor) -> Tensor:
    """One minus the mean over the episodes of the return, as a share of the largest: (runs, episodes) to (runs)."""
    return 1 - returns.mean(1) / LIMIT


def losses(params: Tensors, starts: Tensor, chances: Tensor) -> Tensor:
    """The loss of each run, and by autograd the policy gradient; for starts (runs, n, 4), chances (runs, n, 500)."""
    played = play(params, starts, chances)
    # One after another, each as long as its own episodes: so a run has the same bits beside any other.
    values = [
        surrogate({name: p[run] for name, p in params.items()}, *(x[run] for x in played)) for run in range(len(starts))
    ]
    # A surrogate has the gradient, but its value means nothing.
    return share_lost(played[2].sum(-1)) + torch.stack([value - value.detach() for value in values])


def surrogate(params: Tensors, seen: Tensor, right: Tensor, on: Tensor) -> Tensor:
    """What has the policy gradient of one run, from what :func:`play` gives of it."""
    longest = int(on.sum(-1).max())
    seen, right, on = seen[:, :longest], right[:, :longest], on[:, :longest]
    to_go = on.flip(-1).cumsum(-1).flip(-1)
    # The mean of the other episodes, in which those that ended count as zero: independent of this one's action.
    baseline = (to_go.sum(0) - to_go) / (len(on) - 1)
    logits = policy(params, seen.flatten(0, 1)).view_as(on)
    score = F.logsigmoid(torch.where(right, logits, -logits)) * (to_go - baseline) * on
    return -score.sum(-1).mean() / LIMIT


@torch.no_grad()
@np.errstate(over="ignore", invalid="ignore")  # In runs that diverged.
def play(params: Tensors, starts: Tensor, chances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Play episodes from their starts (runs, n, 4), pushing right where the chance (runs, n, 500) is below the odds.

    Gives what was seen (runs, n, 500, 4), in units of ``SCALE``, whether the push was to the right, and
    one for each step until the end, zero from there on (both runs, n, 500).
    """
    import gymnasium

    runs, n, length = chances.shape
    # numpy takes the runs of a product one after another, so that each has the same bits beside any other.
    numbers = {name: p.cpu().numpy() for name, p in params.items()}
    odds = np.ascontiguousarray(chances.logit().cpu().numpy().transpose(2, 0, 1))
    seen = np.zeros((length, runs, n, 4), np.float32)
    right, on = np.zeros((length, runs, n), bool), np.zeros((length, runs, n), np.float32)
    carts: Any = gymnasium.make_vec("CartPole-v1", runs * n, vectorization_mode="vector_entry_point").unwrapped
    carts.reset(seed=0)
    carts.state = starts.cpu().double().flatten(0, 1).numpy().T.copy()
    now, still = carts.state.T, np.ones((runs, n), bool)
    for t in range(length):
        seen[t], on[t] = (now / SCALE).reshape(runs, n, 4), still
        right[t] = policy(numbers, seen[t], np.tanh) > odds[t]
        now, _, fallen, late, _ = carts.step(right[t].reshape(-1).astype(np.int64))
        still = still & ~(fallen | late).reshape(runs, n)
        if not still.any():
            break
    played = [torch.from_numpy(x).movedim(0, 2).contiguous().to(starts.device) for x in (seen, right, on)]
    return played[0], played[1], played[2]
