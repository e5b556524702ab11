# named: At step 2 you ask for the slope at
def look_ahead_step(theta, slope, m, *, lr=0.1, momentum=0.9):
    m = momentum * m + lr * slope(theta - m)
    return theta - m, m
