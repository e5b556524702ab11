# named: from which velocity on?
def coast_after_drop(g, lr, momentum):
    velocity = lr * g / (1 - momentum)
    inside = -velocity / (1 - momentum)
    return inside, inside / 10
