"""`ezpz yeet tar`: what goes into an archive, and making it."""
