"""Pure data: entries, sources, plans, events, results, reports."""
