# named: does it end with return?
def largest_rate(curvatures):
    print(2 / max(curvatures))
