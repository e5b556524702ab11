# named: coast must return one number
def coast(g, lr, momentum):
    print(-lr * g / (1 - momentum))
