"""The stream on a node: frames, chunks, connections, relays, and the writer of the tree."""
