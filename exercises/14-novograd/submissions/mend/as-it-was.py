# named: what does one layer know of the other
class Mended(Base):
    v = torch.zeros(())

    def move(self, p, g, state, group):
        beta1, beta2 = group["betas"]
        self.v = beta2 * self.v + (1 - beta2) * g.norm() ** 2
        u = g / (self.v.sqrt() + group["eps"]) + group["weight_decay"] * p
        state["m"] = beta1 * state.get("m", 0) + u
        p.sub_(group["lr"] * state["m"])
