"""Queries of `ezpz yeet status` and `clean` to nodes, and classification of the answers."""
