"""`status` and `clean`: questions to nodes, and classification of their answers."""
