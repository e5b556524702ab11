# named: a well-known mistake: ascent
def plain_step(p, g, t, *, lr=0.1):
    return (p + lr * g,)
