"""One file a scheduler: how it tells the nodes of a job."""
