"""The ways to copy a tree to the nodes."""
