# named: where does the second step begin
def position(x, h, lr, t):
    return x - t * lr * h * x
