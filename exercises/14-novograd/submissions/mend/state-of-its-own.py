# named: keep all state in self.state[p]
class Mended(Base):
    def move(self, p, g, state, group):
        beta1, beta2 = group["betas"]
        state = self.__dict__.setdefault("mine", {}).setdefault(p, {})
        new, v = g.norm() ** 2, state.get("v", torch.zeros_like(g.norm()))
        v = state["v"] = torch.where(v == 0, new, beta2 * v + (1 - beta2) * new)
        u = g / (v.sqrt() + group["eps"]) + group["weight_decay"] * p
        state["m"] = beta1 * state.get("m", 0) + u
        p.sub_(group["lr"] * state["m"])
