"""Where the figures in docs/benchmarks.md come from: ours and its peers, beside each other in one run.

One file a benchmark; `registry.py` names them, `page.py` writes them down.
"""
