# named: Is it the largest
def largest_stable_rate(rule, momentum):
    return 2 / 25
