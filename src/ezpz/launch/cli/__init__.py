"""`ezpz launch`: options and the command."""
