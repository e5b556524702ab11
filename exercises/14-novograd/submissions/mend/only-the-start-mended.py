# named: what does one layer know of the other
class Mended(Base):
    v = torch.zeros(())

    def move(self, p, g, state, group):
        beta1, beta2 = group["betas"]
        new = g.norm() ** 2
        self.v = torch.where(self.v == 0, new, beta2 * self.v + (1 - beta2) * new)
        u = g / (self.v.sqrt() + group["eps"]) + group["weight_decay"] * p
        state["m"] = beta1 * state.get("m", 0) + u
        p.sub_(group["lr"] * state["m"])
