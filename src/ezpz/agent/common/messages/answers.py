"""Results of the requests of a run."""

from typing import Mapping, Optional, Sequence

from .base import Count, Path, Seconds
from .envelope import Answer
from .parts import LeakFound, StandingCopy
from .receipt import Receipt


class CapabilitiesAnswer(Answer):
    """Whether rsync is installed, and whether it can compress with zstd."""

    zstd: "bool"
    rsync: "bool"


class PrepareAnswer(Answer):
    """The staging directory, the receipt of the version in place, paths of tools, and what the filesystem offers."""

    staging: "Path"
    receipt: "Optional[Receipt]"
    tools: "Mapping[str, Path]" = {}  # noqa: RUF012 - never changed
    free_bytes: "Count" = 0
    free_files: "Optional[Count]" = None
    filesystem: "str" = ""


class InterpreterAnswer(Answer):
    """Whether the node has the same interpreter on its own disk; why not, "" if it has."""

    same: "bool"
    why: "str"


class PullAnswer(Answer):
    """How an rsync ended; stderr: the end of it."""

    returncode: "int"
    stderr: "str"
    seconds: "Seconds"
    sent_files: "Count"
    sent_bytes: "Count"


class InstalledAnswer(Answer):
    """What of the version in place can be used again.

    contents: of its manifest, "" for none; changed: paths that cannot be used; untouched: it is as it was published
    """

    contents: "str" = ""
    changed: "Sequence[str]" = ()
    untouched: "bool" = False
    receipt: "Optional[Receipt]" = None


class AdoptAnswer(Answer):
    """How many files were taken over from the version in place."""

    files: "Count"


class ManifestAnswer(Answer):
    """A piece of a manifest in base64, "" after its end."""

    piece: "str"


class PublishAnswer(Answer):
    """What publishing did.

    unchanged: the same version was there already; removed: the count of files that are gone; replaced: the version
    that was there, "" for none that ezpz created
    """

    unchanged: "bool" = False
    removed: "Count" = 0
    replaced: "str" = ""


class NoteAnswer(Answer):
    """The path of the list of failed nodes."""

    path: "Path"


class LookAnswer(Answer):
    """What is at a destination, None for nothing."""

    standing: "Optional[StandingCopy]"


class LeaksAnswer(Answer):
    """The version of the environment's Python, and its leaks."""

    python: "str"
    leaks: "Sequence[LeakFound]"
