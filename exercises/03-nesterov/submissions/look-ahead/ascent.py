# named: At step 1 theta moves by
def look_ahead_step(theta, slope, m, *, lr=0.1, momentum=0.9):
    m = momentum * m + lr * slope(theta - momentum * m)
    return theta + m, m
