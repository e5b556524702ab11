# named: noise_floor must return one number; yours returned Tensor
def noise_floor(lr):
    valley = landscapes.noisy_valley()
    paths = landscapes.trajectory("sgd", valley, steps=600, seed=range(200), lr=lr)
    return valley(paths[:, -100:]).mean(dim=1)
