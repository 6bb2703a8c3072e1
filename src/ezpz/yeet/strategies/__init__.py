"""Ways to read a source, one file each."""
