"""Carries a launch plan out: attempts, restarts, monitoring, signals."""
