# named: largest_rate must return one number
def largest_rate(curvatures):
    return [2 / h for h in curvatures]
