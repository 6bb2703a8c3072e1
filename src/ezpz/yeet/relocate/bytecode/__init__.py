"""Bytecode: which files are valid, and compiling the missing ones."""
