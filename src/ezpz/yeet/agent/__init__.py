"""What runs on a node: standard library only, Python 3.6 or later, sent as source."""
