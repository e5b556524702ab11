# named: a rate that changes half-way
class Mended(Base):
    def move(self, p, g, state, group):
        beta1, beta2 = group["betas"]
        if not state:
            zeros = torch.zeros_like(p)
            state.update(m=zeros, v=zeros.clone(), largest=zeros.clone())
        state["m"].mul_(beta1).add_((1 - beta1) * g)
        state["v"].mul_(beta2).add_((1 - beta2) * g * g)
        largest = state["largest"] = torch.maximum(state["largest"], state["v"])
        p.sub_(self.defaults["lr"] * state["m"] / (largest.sqrt() + group["eps"]))
