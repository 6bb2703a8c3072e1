"""Start ranks on the nodes of an allocation."""
