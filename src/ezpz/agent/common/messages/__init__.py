"""Requests, answers, and events of an agent; docs/reference/protocol.md lists them."""
