"""Sinks for entries while they are read, and the files of earlier versions."""
