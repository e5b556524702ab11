# named: a larger rate is possible
def largest_rate(curvatures):
    return 1 / max(curvatures)
