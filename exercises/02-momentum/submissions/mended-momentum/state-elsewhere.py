# named: saved by state_dict and loaded again
class MendedMomentum(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, momentum=0.9):
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                kept = self.__dict__.setdefault("velocity", {})
                kept[p] = group["momentum"] * kept.get(p, 0.0) + group["lr"] * p.grad
                p -= kept[p]
        return loss
