# named: Which of the two looks ahead?
def textbook(p, momentum_buffer, *, lr, momentum):
    return p - momentum * lr * momentum_buffer
