"""What runs on nodes: Python 3.6, standard library only, imports nothing else of ezpz."""
