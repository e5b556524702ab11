# named: is it the mean of the losses, under noise
def noise_floor(lr):
    valley = landscapes.get("quadratic")
    paths = landscapes.trajectory("sgd", valley, steps=600, seed=range(200), lr=lr)
    return valley(paths[:, -100:]).mean().item()
