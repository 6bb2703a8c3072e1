"""The changes that make an environment work at its destination."""
