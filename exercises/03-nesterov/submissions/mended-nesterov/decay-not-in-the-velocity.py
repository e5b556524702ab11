# named: (with weight decay)
class MendedNesterov(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, momentum=0.9, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            lr, mu = group["lr"], group["momentum"]
            for p in (p for p in group["params"] if p.grad is not None):
                g = p.grad + group["weight_decay"] * p
                m = mu * self.state[p].get("momentum_buffer", 0.0) + lr * p.grad
                self.state[p]["momentum_buffer"] = m
                p -= mu * m + lr * g
        return loss
