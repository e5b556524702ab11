# named: Is that one of the momenta, or its place
def best_momentum(condition):
    every = dict(lr=np.tile(rates(condition), 10), momentum=np.repeat(momenta, 40))
    paths = landscapes.trajectory("sgdm", landscapes.quadratic(condition), start=(1, 1), steps=60, **every)
    nearest = paths[:, -1].norm(dim=1).reshape(10, 40).amin(dim=1)
    return int(nearest.argmin())
