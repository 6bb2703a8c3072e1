COUNTS=()
def picture(*a): return ""
