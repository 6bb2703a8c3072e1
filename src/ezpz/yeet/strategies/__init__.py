"""Strategies: how a source is read."""
