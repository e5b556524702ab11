# named: what do they share?
class MendedAdam(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for p, group in [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]:
            state, (b1, b2) = self.state[p], group["betas"]
            t = self.t = getattr(self, "t", 0) + 1
            state["m"] = b1 * state.get("m", 0.0) + (1 - b1) * p.grad
            state["v"] = b2 * state.get("v", 0.0) + (1 - b2) * p.grad**2
            divisor = (state["v"] / (1 - b2**t)).sqrt() + group["eps"]
            p -= group["lr"] * state["m"] / (1 - b1**t) / divisor
        return loss
