# named: which direction is the first to grow?
def largest_rate(curvatures):
    return max(curvatures) / 2
