"""The command line: the `ezpz` group, its output, and the only catch-all."""
