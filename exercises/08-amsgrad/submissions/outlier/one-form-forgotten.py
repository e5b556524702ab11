# named: torch is missing
def in_the_end(spike, beta2):
    kept = 1 / max(1.0, (1 - beta2) ** 0.5 * spike)
    return {"adam": 1.0, "paper": kept, "optax": 1 / max(1.0, spike)}
