"""Older module paths that are documented, each a thin shim."""
