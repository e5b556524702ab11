# named: zero-start
class Mended(Base):
    def move(self, p, g, state, group):
        beta1, beta2 = group["betas"]
        v = state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g.norm() ** 2
        u = g / (v.sqrt() + group["eps"]) + group["weight_decay"] * p
        state["m"] = beta1 * state.get("m", 0) + u
        p.sub_(group["lr"] * state["m"])
