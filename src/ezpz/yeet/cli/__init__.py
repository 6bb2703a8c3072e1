"""Commands of `ezpz yeet` and everything that they print."""
