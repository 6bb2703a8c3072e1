"""Container formats, read and written."""
