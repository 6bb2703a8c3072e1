"""Engines: how a copy reaches the nodes."""
