# named: NameError
def plain_step(p, g, t, *, lr=0.1):
    return (p - learning_rate * g,)
