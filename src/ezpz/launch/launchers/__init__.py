"""One file a launcher: its command line, its labels, its signals, its exit statuses, its failure messages."""
