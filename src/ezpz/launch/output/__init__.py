"""What ranks and launchers print: labels, logs, failures."""
