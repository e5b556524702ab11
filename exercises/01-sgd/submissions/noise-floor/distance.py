# named: Is it the loss that you average?
def noise_floor(lr):
    valley = landscapes.noisy_valley()
    paths = landscapes.trajectory("sgd", valley, steps=600, seed=range(200), lr=lr)
    return paths[:, -100:].norm(dim=2).mean().item()
