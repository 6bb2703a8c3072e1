"""Engines: how what stands on one host gets to all the others."""
