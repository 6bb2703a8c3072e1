"""What is special about a machine: data, chosen by host name."""
