"""The benchmarks of docs/benchmarks.md: ezpz and its peers, measured in one run.

Each benchmark has a file. `registry.py` lists them, and `page.py` writes the page.
"""
