"""The stream engine: decisions about the tree, the sender, and the connections."""
