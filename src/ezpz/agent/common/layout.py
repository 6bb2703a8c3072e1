"""Names of the files that ezpz keeps in a copy, and of directories in staging."""

import stat

RECEIPT = b".ezpz-yeet-receipt.json"
FAILED_NODES = b".ezpz-yeet-failed-nodes.txt"
MANIFEST = b".ezpz-yeet-manifest"
OLD = b"old"  # in staging: the previous version, where the kernel cannot exchange two names
GONE = b"gone"  # in staging: a version that is being removed
OWN_FILES = (RECEIPT, FAILED_NODES, MANIFEST)
CARRIED = (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK)
