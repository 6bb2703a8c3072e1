"""What an environment says of itself."""
