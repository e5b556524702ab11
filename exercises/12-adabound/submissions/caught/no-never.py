# named: ZeroDivisionError
def caught(rate, final_lr, gamma):
    x = rate / final_lr
    edge = 1 / (x - 1) if x > 1 else x / (1 - x) if x < 1 else 1 / 0
    return math.floor(edge / gamma) + 1
