"""Bytecode of a copy: which files are valid, and how missing files are compiled."""
