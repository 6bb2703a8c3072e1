"""What is added to a copy: base Python, editable snapshots, env.sh, conda activation."""
