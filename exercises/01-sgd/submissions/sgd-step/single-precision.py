# named: differs by rounding alone
def sgd_step(p, g, t, *, lr=0.1, weight_decay=0.0):
    decayed = g.float() + weight_decay * p.float()
    return (p - (lr * decayed).double(),)
