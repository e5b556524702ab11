# named: borrows SGD from a library
class MendedSGD(torch.optim.SGD):
    pass
