"""Archive: a tree as one file that `ezpz yeet FILE` and plain tar read; see docs/reference/archive.md."""
