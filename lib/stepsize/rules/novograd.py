"""NovoGrad: momentum over gradients that each layer divides by the average norm of its own."""

import torch

from .base import norm, rule, where


# fmt: off
@rule(
    paper=(
        "Ginsburg et al., Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep Networks, "
        "arXiv 1905.11286v1, 2019, algorithm 2, equations 8 to 10; v3 (2020): Training Deep Networks with Stochastic "
        "Gradient Normalized by Layerwise Adaptive Second Moments"
    ),
    year=2019,
    equation=r"""
        v_t &= \begin{cases} \lVert g_t \rVert^2 & v_{t-1} = 0 \\
            \beta_2 v_{t-1} + (1 - \beta_2) \lVert g_t \rVert^2 & \text{otherwise} \end{cases} \\
        \hat v_t &= \max(\hat v_{t-1}, v_t) \\
        u_t &= \begin{cases} \frac{g_t}{\sqrt{\hat v_t} + \epsilon} & \text{amsgrad} \\
            \frac{g_t}{\sqrt{v_t} + \epsilon} & \text{otherwise} \end{cases} \\
        m_t &= \beta_1 m_{t-1} + u_t + \lambda \theta_{t-1} \\
        \theta_t &= \theta_{t-1} - \eta m_t
    """,
    state={"exp_avg_sq": "layer", "max_exp_avg_sq": "layer", "exp_avg": "tensor"},
    optimizer="NovoGrad",
)
def novograd(
    p, g, t, exp_avg_sq, max_exp_avg_sq, exp_avg, *,
    lr=1e-2, betas=(0.95, 0.98), eps=1e-8, weight_decay=0.0, grad_averaging=False, amsgrad=False, layer_lr_clip=None,
):
    """Divide each layer's gradient by the root of its average squared norm, add decay, walk with momentum.

    ``p``, ``g``: tensors of one shape, one layer. ``exp_avg_sq`` is one number, the average squared
    norm of the gradient, begun at the first that is not zero, so that nothing needs correction;
    ``max_exp_avg_sq`` is the largest so far. ``exp_avg`` is a *sum* of normalised gradients and of
    decay. ``lr`` is the length of a layer's first step, in units of ``p``; a constant gradient gives
    steps of lr x (1, 1.95, 2.8525, ...) up to ``lr / (1 - betas[0])``. At a constant rate the path
    never settles: lower ``lr`` as you go.

    ``weight_decay`` enters ``exp_avg`` as it is, and so acts about ``1 / (1 - betas[0])`` times over.
    ``grad_averaging`` scales what enters ``exp_avg`` by ``1 - betas[0]``. ``amsgrad`` divides by the
    root of ``max_exp_avg_sq``. ``layer_lr_clip``, ``None`` or above 0 (such as 1e-3), keeps a layer's
    rate at ``layer_lr_clip * norm(p) / norm(exp_avg)`` or below, except where the weights are all
    zero; this form is our reading of the paper, after NeMo's luc and the authors' LARC.

    A NaN in the gradient spoils its whole layer for good. An infinite one makes its own element NaN
    and the layer's later gradients count for nothing. One whose square underflows counts as zero.
    """
    beta1, beta2 = betas
    squared_norm = norm(g) ** 2
    exp_avg_sq = where(exp_avg_sq == 0, squared_norm, beta2 * exp_avg_sq + (1 - beta2) * squared_norm)
    max_exp_avg_sq = torch.maximum(max_exp_avg_sq, exp_avg_sq)
    u = g / (where(amsgrad, max_exp_avg_sq, exp_avg_sq).sqrt() + eps) + weight_decay * p
    exp_avg = beta1 * exp_avg + where(grad_averaging, 1 - beta1, 1.0) * u
    if layer_lr_clip is not None:
        lr = where(norm(p) == 0, lr, (layer_lr_clip * norm(p) / norm(exp_avg)).clamp(max=lr))
    return p - lr * exp_avg, exp_avg_sq, max_exp_avg_sq, exp_avg


# fmt: on


FIRST_STEP_STARTS = {"where(exp_avg_sq == 0,": "where(t == 1,"}
FIRST_STEP_WHOLE = {"where(grad_averaging,": "where(grad_averaging & (t != 1),"}

novograd.library(
    "openseq2seq",
    "The authors' code: eps stands inside the root.",
    {"sq).sqrt() + eps)": "sq) + eps).sqrt()", "lr=1e-2": "lr=1.0"},
)
novograd.library(
    "timm",
    "NvNovoGrad, from NVIDIA's DeepLearningExamples: the paper's form with a smaller rate.",
    {"lr=1e-2": "lr=1e-3"},
)
novograd.library(
    "torch-optimizer",
    "With beta2 = 0 the layer forgets every earlier norm: only the newest gradient's own norm divides it.",
    {"lr=1e-2": "lr=1e-3", "betas=(0.95, 0.98)": "betas=(0.95, 0.0)"},
)
novograd.library(
    "nemo",
    "With luc the clip stands on all layers, and one that starts at zero stays there.",
    {
        "lr=1e-2": "lr=1e-3",
        "layer_lr_clip=None": "layer_lr_clip=1e-3",
        "where(norm(p) == 0, lr, (layer_lr_clip * norm(p) / norm(exp_avg)).clamp(max=lr))": (
            "(layer_lr_clip * norm(p) / (norm(exp_avg) + 1e-8)).clamp(max=lr)"
        ),
    },
)
novograd.library(
    "optax",
    "The memories are short, and a start at the first step even if its gradient is zero.",
    {**FIRST_STEP_STARTS, "betas=(0.95, 0.98)": "betas=(0.9, 0.25)", "eps=1e-8": "eps=1e-6"},
)
novograd.library(
    "pytorch-optimizer",
    "Version 4: a start at the first step even if its gradient is zero, and averaging only from the second.",
    {**FIRST_STEP_STARTS, **FIRST_STEP_WHOLE, "lr=1e-2": "lr=1e-3"},
)
novograd.library(
    "pytorch-optimizer-3.10",
    "The first gradient enters the moment twice, and Adam's corrections come on top.",
    {
        **FIRST_STEP_STARTS,
        "beta1 * exp_avg +": "beta1 * where(t == 1, u, exp_avg) +",
        "p - lr * exp": "p - lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t) * exp",
        "lr=1e-2": "lr=1e-3",
    },
)
novograd.library(
    "tf-addons",
    "The rate stands inside the moment, the memories are long, and averaging begins at the second step.",
    {
        **FIRST_STEP_STARTS,
        **FIRST_STEP_WHOLE,
        "1.0) * u": "1.0) * (lr * u)",
        "p - lr * exp": "p - exp",
        "    if layer_lr_clip is not None:\n": "",
        "        lr = where(norm(p) == 0, lr, (layer_lr_clip * norm(p) / norm(exp_avg)).clamp(max=lr))\n": "",
        ", layer_lr_clip=None": "",
        "lr=1e-2": "lr=1e-3",
        "betas=(0.95, 0.98)": "betas=(0.9, 0.999)",
        "eps=1e-8": "eps=1e-7",
    },
)


@novograd.library(
    "apex",
    "The moment is of raw gradients, decay stands outside, and Adam's corrections come on top of the first norm.",
    state={"exp_avg_norm": "layer", "exp_avg": "tensor"},
)
def _novograd_apex(p, g, t, n, m, *, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, grad_averaging=True):
    beta1, beta2 = betas
    n = where(t == 1, norm(g), (beta2 * n**2 + (1 - beta2) * norm(g) ** 2).sqrt())
    m = beta1 * m + where(grad_averaging, 1 - beta1, 1.0) * g
    m_hat, n_hat = m / (1 - beta1**t), n / (1 - beta2**t) ** 0.5
    return p - lr * (m_hat / (n_hat + eps) + weight_decay * p), n, m


novograd.mistake("ascent", "Look at the sign of the first displacement.", {"p - lr * exp": "p + lr * exp"})
novograd.mistake(
    "zero-start",
    "Compute the first displacement by hand: is it as long as the rate?",
    {"where(exp_avg_sq == 0, squared_norm, beta2": "(beta2"},
)
novograd.mistake(
    "bias-correction",
    "Compute the first displacement by hand: is there anything to correct for?",
    {"p - lr * exp": "p - lr / (1 - beta1**t) * exp"},
)
novograd.mistake(
    "norm-not-squared",
    "Multiply all gradients by a thousand: does the path change?",
    {"norm(g) ** 2": "norm(g)"},
)
novograd.mistake(
    "no-root",
    "Multiply all gradients by a thousand: does the path change?",
    {".sqrt() + eps": " + eps"},
)
novograd.mistake(
    "eps-in-the-root",
    "Set eps as large as the squared norm and compute the first displacement by hand.",
    {"sq).sqrt() + eps)": "sq) + eps).sqrt()"},
)
novograd.mistake(
    "betas-swapped",
    "Give one gradient, then zeros: which of the two averages fades faster?",
    {"beta1, beta2 = betas": "beta2, beta1 = betas"},
)
novograd.mistake(
    "weights-swapped",
    "Give a large gradient, then small ones: which part of the average should be left after each step?",
    {"beta2 * exp_avg_sq + (1 - beta2) * squared_norm": "(1 - beta2) * exp_avg_sq + beta2 * squared_norm"},
)
novograd.mistake("per-element", "Count the numbers in one layer's second moment.", {"norm(g) ** 2": "g**2"})
novograd.mistake(
    "mean-square",
    "Give a layer with more elements: is the first step still as long as the rate?",
    {"norm(g) ** 2": "norm(g) ** 2 / g.numel()"},
)
novograd.mistake(
    "average-not-sum",
    "Compute the first displacement by hand: is it as long as the rate?",
    {"where(grad_averaging, 1 - beta1, 1.0)": "(1 - beta1)"},
)
novograd.mistake(
    "decay-outside-the-moment",
    "Set decay, then zero gradients: does the moment remember earlier decay?",
    {" + weight_decay * p": "", "p - lr * exp": "p - lr * weight_decay * p - lr * exp"},
)
novograd.mistake(
    "decay-before-normalising",
    "Set decay with a tiny gradient: does the decay lose its size too?",
    {"= betas\n": "= betas\n    g = g + weight_decay * p\n", "eps) + weight_decay * p": "eps)"},
)
novograd.mistake(
    "normalised-moment",
    "Give a large gradient and then a small one: by which norm is the first one divided at the second step?",
    {
        "g / (where(amsgrad, max_exp_avg_sq, exp_avg_sq).sqrt() + eps) + weight_decay * p": "g",
        "p - lr * exp": (
            "p - lr * weight_decay * p - lr / (where(amsgrad, max_exp_avg_sq, exp_avg_sq).sqrt() + eps) * exp"
        ),
    },
)
novograd.mistake(
    "forgets-the-maximum",
    "Set amsgrad, give one large gradient and then small ones: may the steps grow again?",
    {"torch.maximum(max_exp_avg_sq, exp_avg_sq)": "exp_avg_sq"},
)
novograd.mistake(
    "no-memory-of-norms",
    "Give a large gradient and then a small one: how long is what the small one adds to the moment?",
    {"beta2 * exp_avg_sq + (1 - beta2) * squared_norm": "squared_norm"},
)
