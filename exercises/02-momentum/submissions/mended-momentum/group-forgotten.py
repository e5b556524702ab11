# named: KeyError
class MendedMomentum(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, momentum=0.9):
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                old = self.state[p].get("momentum_buffer", 0.0)
                self.state[p]["momentum_buffer"] = group["mu"] * old + group["lr"] * p.grad
                p -= self.state[p]["momentum_buffer"]
        return loss
