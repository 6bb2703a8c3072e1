"""What runs on a node before and between attempts: standard library only, sent as source."""
