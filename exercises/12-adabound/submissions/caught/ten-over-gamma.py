# named: : you say step
def caught(rate, final_lr, gamma):
    x = rate / final_lr
    if x == 1:
        return math.inf
    edge = 10
    return math.floor(edge / gamma) + 1
