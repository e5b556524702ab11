# named: too late
def caught(rate, final_lr, gamma):
    x = rate / final_lr
    if x == 1:
        return math.inf
    edge = x / abs(1 - x)
    return math.floor(edge / gamma) + 1
