# named: Which comes first
def divisors(gradients, beta2):
    v = raw = corrected = 0.0
    found = {"paper": [], "torch": [], "optax": []}
    for t, g in enumerate(gradients, start=1):
        v = beta2 * v + (1 - beta2) * g**2
        debias = 1 - beta2**t
        raw, corrected = max(raw, v), max(corrected, v / debias)
        found["paper"].append(raw**0.5)
        found["torch"].append(corrected**0.5)
        found["optax"].append(corrected**0.5)
    return found
