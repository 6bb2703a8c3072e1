"""Making archives with `ezpz yeet tar`: what goes into one, and writing it."""
