"""The source tree: inspect, scan, follow links, exclude, read."""
