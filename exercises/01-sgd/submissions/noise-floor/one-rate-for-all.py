# named: Too high
def noise_floor(lr):
    valley = landscapes.noisy_valley()
    paths = landscapes.trajectory("sgd", valley, steps=600, seed=range(200), lr=0.1)
    return valley(paths[:, -100:]).mean().item()
