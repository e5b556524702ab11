# named: from which velocity on?
def coast_after_drop(g, lr, momentum):
    velocity = lr * g
    inside = -velocity * momentum / (1 - momentum)
    return inside, inside / 10
