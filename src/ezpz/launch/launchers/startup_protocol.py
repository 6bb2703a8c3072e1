r"""The markers that ranks print on stderr when they start: the sh that prints them, and the patterns that read them.

A marker is a line `\x1eNAME WHAT RANK HOST\x1e`. NAME is random for each run, so that no program prints it by accident.
"""

from __future__ import annotations

import re

SCRIPT_NAME = "ezpz"
"""The name ($0) of the wrapper script. With a random suffix, it prints markers; without, messages for people."""
STARTED, NO_COMMAND, NO_ENVIRONMENT, UNTRUSTED = "started", "absent", "homeless", "foreign"

PRINT_FUNCTION = (
    r'm(){ case $0 in ezpz-*)printf "\036%s %s %s %s\036\n" '
    r'"$0" "$1" "${RANK:-0}" "$(uname -n)">&2;; '
    r'*)[ -z "$2" ]||echo "ezpz: $(uname -n): $2">&2;;esac;}'
)
"""The function `m WHAT TEXT` of sh. It prints a marker, or the text if the user pasted the command line."""

_LABEL = rb"(?:(?m:^)\[?\d+(?:,\d+)?\]?(?:<stderr>)?:? ?)?"  # launchers can label the line
MARKER = re.compile(
    _LABEL + rb"\x1e(?P<name>ezpz-[0-9a-f]+) (?P<what>[a-z]+) (?P<rank>\d+) (?P<host>[^ \x1e\n]*)\x1e\n"
)
INCOMPLETE_MARKER = re.compile(rb"(?:\[?\d[\d,]*\]?(?:<stderr>)?:? ?)?\x1e[^\x1e\n]{0,512}\x1e?\Z")
"""The start of a marker at the end of some output, with its label if it has one."""
