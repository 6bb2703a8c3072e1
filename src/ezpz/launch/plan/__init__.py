"""Decides: nodes, ranks, environment, command line."""
