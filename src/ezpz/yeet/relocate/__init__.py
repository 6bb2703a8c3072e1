"""A pure transform that makes an environment work from its new place: bytes in, bytes out."""
