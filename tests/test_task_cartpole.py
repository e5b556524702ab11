"""Tests of the task cartpole: gymnasium's dynamics, and a policy gradient that is the gradient of the return."""

import gymnasium
import numpy as np
import pytest
import torch
from stepsize.tasks import TASKS
from stepsize.tasks.cartpole import EPISODES, LIMIT, SCALE, losses, play, policy
from torch.distributions import Bernoulli

TASK = TASKS["cartpole"]


def one(params):
    return {name: p[None] for name, p in params.items()}


def some_policy():
    """A policy that holds the pole for a while, so that episodes are of many lengths."""
    params = TASK.init(0)
    params["hidden.weight"][0] = torch.tensor([0.0, 0.1, 0.5, 0.5])
    params["output.weight"][0, 0] = 2.0
    return params


def test_episodes_are_those_of_gymnasium_one_at_a_time():
    starts, chances = TASK.episodes(5, torch.Generator().manual_seed(0))
    seen, right, on = play(one(some_policy()), starts[None], chances[None])
    cart = gymnasium.make("CartPole-v1")
    lengths = set()
    for k in range(5):
        cart.reset(seed=0)
        cart.unwrapped.state, ended, total, t = starts[k].double().numpy(), False, 0.0, 0
        observed = starts[k].numpy()
        while not ended:
            np.testing.assert_allclose(seen[0, k, t] * torch.tensor(SCALE), observed, rtol=1e-4, atol=1e-6)
            observed, reward, fallen, late, _ = cart.step(int(right[0, k, t]))
            total, t, ended = total + reward, t + 1, fallen or late
        assert on[0, k].sum() == total == t
        assert on[0, k, :t].all() and not on[0, k, t:].any()
        lengths.add(t)
    assert len(lengths) > 2


def test_push_is_drawn_with_the_policy_odds():
    starts, chances = TASK.episodes(500, torch.Generator().manual_seed(0))
    params = one(TASK.init(0))
    seen, right, on = play(params, starts[None], chances[None])
    first = policy(params, seen[:, :, 0]).sigmoid()
    assert torch.equal(right[0, :, 0], chances[:, 0] < first[0])
    assert right[on.bool()].float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_gradient_is_reinforce_with_the_other_episodes_as_baseline():
    batch = next(TASK.batches(0))
    params = {name: p.requires_grad_() for name, p in some_policy().items()}
    seen, right, on = (x[0] for x in play(one(params), *(x[None] for x in batch)))
    lengths = on.sum(1).int().tolist()
    total = 0.0
    for k, length in enumerate(lengths):
        hidden = torch.tanh(seen[k, :length] @ params["hidden.weight"].T + params["hidden.bias"])
        logits = (hidden @ params["output.weight"].T + params["output.bias"])[:, 0]
        scores = Bernoulli(logits=logits).log_prob(right[k, :length].float())
        for t in range(length):
            others = [max(0, other - t) for j, other in enumerate(lengths) if j != k]
            total = total + scores[t] * (length - t - np.mean(others))
    expected = torch.autograd.grad(-total / EPISODES / LIMIT, list(params.values()))
    loss = TASK.loss(params, batch)
    assert loss.item() == pytest.approx(1 - np.mean(lengths) / LIMIT)
    for ours, theirs in zip(torch.autograd.grad(loss, list(params.values())), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_gradient_is_that_of_the_expected_loss():
    random = torch.Generator().manual_seed(0)
    leaves = {name: p.requires_grad_() for name, p in one(some_policy()).items()}

    def gradient(count):
        loss = losses(leaves, *(x[None] for x in TASK.episodes(count, random)))
        return torch.autograd.grad(loss.sum(), list(leaves.values()))

    away, grads = gradient(100), gradient(600)
    length = sum((a**2).sum() for a in away).sqrt()
    slope = sum((g * a).sum() for g, a in zip(grads, away, strict=True)) / length
    moves = {name: 0.05 * a / length for name, a in zip(leaves, away, strict=True)}
    ends = {name: torch.cat([p - moves[name], p + moves[name]]).detach() for name, p in leaves.items()}
    _, _, on = play(ends, *(x.expand(2, -1, -1) for x in TASK.episodes(2000, random)))
    down, up = 1 - on.sum(-1).mean(1) / LIMIT
    assert ((up - down) / 0.1).item() == pytest.approx(slope.item(), rel=0.2)


def test_run_has_the_same_bits_alone_and_beside_others():
    runs = [TASK.init(seed) for seed in range(5)]
    stacked = {name: torch.stack([run[name] for run in runs]) for name in runs[0]}
    batch = tuple(torch.stack(x) for x in zip(*(next(TASK.batches(seed)) for seed in range(5)), strict=True))
    grads, values, _ = TASK.gradient(stacked, batch, {})
    alone, value, _ = TASK.gradient(one(runs[3]), tuple(x[3:4] for x in batch), {})
    assert value[0] == values[3]
    assert all(torch.equal(alone[name][0], grads[name][3]) for name in grads)
    measured = TASK.measure(stacked)
    assert all(value == measured[name][3] for name, value in TASK.evaluate(runs[3]).items())


def test_pushing_at_random_is_far_below_the_target():
    params = {name: torch.zeros_like(p) for name, p in TASK.init(0).items()}
    starts, chances = TASK.episodes(2000, torch.Generator().manual_seed(0))
    _, _, on = play(one(params), starts[None], chances[None])
    assert on.sum(-1).mean().item() == pytest.approx(22, abs=1)
    assert TASK.evaluate(params)["test_return"] < 30 < TASK.target


def test_policy_that_is_not_a_number_has_no_loss():
    params = TASK.init(0)
    params["output.bias"][0] = torch.nan
    assert TASK.evaluate(params)["train_loss"].isnan()
