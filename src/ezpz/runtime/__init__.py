"""Processes, threads, signals, plugins and text that know nothing of environments, nodes and jobs."""
