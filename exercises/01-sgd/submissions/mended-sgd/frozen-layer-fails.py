# named: The path is right, but: Your code stopped
class MendedSGD(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                if True:
                    g = p.grad + group["weight_decay"] * p
                    p -= group["lr"] * g
        return loss
