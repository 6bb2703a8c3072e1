"""Names of the files that ezpz keeps inside a copy."""

import stat

RECEIPT = b".ezpz-yeet-receipt.json"
FAILED_NODES = b".ezpz-yeet-failed-nodes.txt"
MANIFEST = b".ezpz-yeet-manifest"
OWN_FILES = (RECEIPT, FAILED_NODES, MANIFEST)
CARRIED = (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK)
