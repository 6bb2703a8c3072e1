"""Modules that both ends use: errors, messages, layout, manifest, receipt, facts about filesystems."""
