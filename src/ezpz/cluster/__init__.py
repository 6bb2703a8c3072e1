"""Which nodes do I have and how do I reach them; shared by launch and yeet."""
