"""The command line of an HPC toolkit: `yeet` an environment to every node, `launch` the ranks there."""

__version__ = "0.1.0"
