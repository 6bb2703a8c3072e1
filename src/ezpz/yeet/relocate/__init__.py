"""Relocation: what changes in an environment that moves."""
