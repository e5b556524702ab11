# named: TypeError
def textbook(p, momentum_buffer, *, lr, momentum):
    theta = p + momentum * lr * momentum_buffer
