# named: Which way was it going?
def coast_after_drop(g, lr, momentum):
    velocity = lr * g / (1 - momentum)
    inside = velocity * momentum / (1 - momentum)
    return inside, inside / 10
