# named: two mistakes at once: no-forgetting + rate-outside
class MendedMomentum(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, momentum=0.9):
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                old = self.state[p].get("momentum_buffer", 0.0)
                self.state[p]["momentum_buffer"] = old + p.grad
                p -= group["lr"] * self.state[p]["momentum_buffer"]
        return loss
