# named: Your step must return new p; it returned nothing
def plain_step(p, g, t, *, lr=0.1):
    print(p - lr * g)
