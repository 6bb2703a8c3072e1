"""Put a directory or archive on the node-local disk of every node."""
