"""Read the source: inspect, scan, follow links, exclude, and check for changes."""
