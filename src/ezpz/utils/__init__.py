"""Documented old module paths, each a thin shim."""
