# named: a larger rate is possible
def largest_rate(curvatures):
    return 2 / (min(curvatures) + max(curvatures))
