# named: too early
def caught(rate, final_lr, gamma):
    x = rate / final_lr
    if x == 1:
        return math.inf
    edge = 1 / (x - 1) if x > 1 else x / (1 - x)
    return max(1, math.floor(edge / gamma))
