# named: inside: after the change
def coast_after_drop(g, lr, momentum):
    velocity = lr * g / (1 - momentum)
    inside = -velocity * momentum / (1 - momentum)
    return inside / 10, inside
