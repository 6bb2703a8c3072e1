"""Schedulers, one file for each: how the nodes of a job are found."""
