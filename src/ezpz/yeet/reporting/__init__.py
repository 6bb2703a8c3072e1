"""Progress state, timeline, and the summary of a run."""
