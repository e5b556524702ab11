# named: one and the same tensor
class Mended(Base):
    def move(self, p, g, state, group):
        beta1, beta2 = group["betas"]
        if not state:
            zeros = torch.zeros_like(p)
            state.update(m=zeros, v=zeros, largest=zeros)
        state["m"].mul_(beta1).add_((1 - beta1) * g)
        state["v"].mul_(beta2).add_((1 - beta2) * g * g)
        largest = state["largest"] = torch.maximum(state["largest"], state["v"])
        p.sub_(group["lr"] * state["m"] / (largest.sqrt() + group["eps"]))
