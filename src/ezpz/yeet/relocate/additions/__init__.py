"""Additions to a copy: the relocation plan, editable snapshots, env.sh, and conda activation."""
