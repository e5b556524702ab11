# named: but steps begin at 1
def caught(rate, final_lr, gamma):
    x = rate / final_lr
    if x == 1:
        return math.inf
    edge = 1 / (x - 1)
    return math.floor(edge / gamma) + 1
