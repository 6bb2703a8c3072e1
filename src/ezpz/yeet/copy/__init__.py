"""Local-copy strategies: how the source gets into staging on the launching host."""
