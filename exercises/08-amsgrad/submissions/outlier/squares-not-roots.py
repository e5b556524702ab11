# named: paper: after a first gradient
def in_the_end(spike, beta2):
    kept = 1 / max(1.0, (1 - beta2) * spike**2)
    return {"adam": 1.0, "paper": kept, "torch": kept, "optax": 1 / max(1.0, spike)}
