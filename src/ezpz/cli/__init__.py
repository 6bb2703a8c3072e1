"""What all commands share: the `ezpz` group, output, options, and completion."""
