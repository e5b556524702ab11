# named: borrows SGD from a library
class MendedNesterov(torch.optim.SGD):
    pass
