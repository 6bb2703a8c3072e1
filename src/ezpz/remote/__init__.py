"""Talks to agents: start them, send requests, hear events."""
