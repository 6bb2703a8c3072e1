"""The stream engine: who serves whom, and the sender."""
