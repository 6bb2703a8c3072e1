"""stream: one pass from the source to every node, through agents that pass it on."""
