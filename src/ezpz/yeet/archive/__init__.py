"""Container formats of archives, read and written."""
