"""What is special about a machine: one data file a site, ours or the user's, chosen by host name."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ezpz.cluster.hostnames import short
from ezpz.errors import SiteFileError, UsageError
from ezpz.launch.sites import site_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

DEFAULT = "default"
SUFFIX = ".toml"
APPENDED_KEYS = ("noise", "failure")


@dataclass(frozen=True, slots=True)
class SiteMatch:
    """One way to know a site: a host's name matches a pattern of `hosts`, and each variable its own."""

    hosts: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()

    def matching_name(self, names: Sequence[str], environ: Mapping[str, str]) -> str:
        """The first name that matches, if the variables do as well, else ""."""
        if not all(fnmatchcase(environ.get(name, ""), pattern) for name, pattern in self.variables):
            return ""
        return next((name for name in names for pattern in self.hosts if fnmatchcase(name.lower(), pattern)), "")


@dataclass(frozen=True, slots=True)
class FailureRule:
    """A line of output that tells why a run failed: a pattern, whose groups may be `host` and `rank`; and a cause.

    culprit: whether the node of the host or rank is to blame, and not a victim of another
    """

    pattern: str
    cause: str
    is_cause: bool = True


@dataclass(frozen=True, slots=True)
class Site:
    """What is special about a machine.

    accelerators: a node, 0 for unknown
    visible_devices: the variable that tells a rank which accelerators are its own
    with_devices: what else it then needs
    options: what each launcher's line gets besides
    cpu_bind: for each launcher, --cpu-bind by ranks a node ("12"), or "default"
    noise: patterns of lines that say nothing; failures: patterns of lines that say why
    why: how it was chosen; files: what it was read from
    """

    name: str = DEFAULT
    description: str = ""
    accelerators: int = 0
    visible_devices: str = "CUDA_VISIBLE_DEVICES"
    device_variables: Mapping[str, str] = field(default_factory=dict)
    match: tuple[SiteMatch, ...] = ()
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cpu_bind: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    noise: tuple[str, ...] = ()
    failures: tuple[FailureRule, ...] = ()
    why: str = ""
    files: tuple[str, ...] = ()

    def binding(self, launcher: str, ppn: int) -> str:
        """The --cpu-bind for so many ranks a node, or ""."""
        table = self.cpu_bind.get(launcher, {})
        return table.get(str(ppn), table.get(DEFAULT, ""))


def choose_site(
    names: Sequence[str], environ: Mapping[str, str], *, wanted: str | None = None, directory: str | None = None
) -> Site:
    """The site that `wanted` names, else the one that the host `names` match most narrowly, else "default".

    folder: the user's files (default: `user_folder`), each laid over ours of the same name. All files are read, so that
    a broken one is known at once. Raises UsageError for an unknown site and SiteFileError with file and line.
    """
    directory = user_directory(environ) if directory is None else directory
    ours, theirs = _packaged_files(), _user_files(directory)
    sites = {name: _merge_layers(name, ours, theirs) for name in sorted({*ours, *theirs})}
    if wanted is not None:
        if wanted not in sites:
            raise UsageError(f"--site '{wanted}': there is no such site", hint=f"choose one of: {', '.join(sites)}")
        return _chosen(sites[wanted], "it was asked for")
    fitting = [
        (name in theirs, len(match.variables), name, hit)
        for name, site in sites.items()
        for match in site.match
        if (hit := match.matching_name(_spellings(names), environ))
    ]
    if not fitting:
        return _chosen(sites[DEFAULT], f"no site has a host named {' or '.join(names)}")
    *_, name, hit = max(fitting)
    return _chosen(sites[name], f"the host name {hit}")


def user_directory(environ: Mapping[str, str]) -> str:
    """Where users keep their files: $XDG_CONFIG_HOME/ezpz/sites, by default in ~/.config."""
    base = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):  # as the XDG Base Directory Specification has it
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return os.path.join(base, "ezpz", "sites")


def _spellings(names: Sequence[str]) -> tuple[str, ...]:
    """Each name as it is and short, for patterns of either kind."""
    return tuple(dict.fromkeys(spelling for name in names for spelling in (name, short(name))))


def _packaged_files() -> dict[str, site_file.ParsedSiteFile]:
    from importlib.resources import files

    directory = files("ezpz.launch") / "sites"
    found = (each for each in directory.iterdir() if each.name.endswith(SUFFIX))
    return {each.name.removesuffix(SUFFIX): site_file.parse(each.read_text("utf-8"), each.name) for each in found}


def _user_files(directory: str) -> dict[str, site_file.ParsedSiteFile]:
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(SUFFIX))
    except OSError:
        return {}
    return {name.removesuffix(SUFFIX): _read(os.path.join(directory, name)) for name in names}


def _read(path: str) -> site_file.ParsedSiteFile:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else f"it is not UTF-8: {e}"
        raise SiteFileError(f"{path}:1: it cannot be read: {reason}", hint="mend the file, or remove it") from e
    return site_file.parse(text, path)


def _merge_layers(
    name: str, ours: Mapping[str, site_file.ParsedSiteFile], theirs: Mapping[str, site_file.ParsedSiteFile]
) -> Site:
    """A site from all files that have a say, the later the stronger: the defaults, ours and theirs, then its own."""
    layers = [files[key] for key in dict.fromkeys((DEFAULT, name)) for files in (ours, theirs) if key in files]
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.values.items():
            merged[key] = _merge_value(key, merged.get(key), value)
    return Site(
        name,
        merged.get("description", ""),
        merged.get("accelerators", 0),
        merged.get("visible-devices", "CUDA_VISIBLE_DEVICES"),
        merged.get("with-devices", {}),
        tuple(_match(each) for each in merged.get("match", ()) if name != DEFAULT),
        {launcher: tuple(words) for launcher, words in merged.get("options", {}).items()},
        merged.get("cpu-bind", {}),
        tuple(merged.get("noise", ())),
        tuple(
            FailureRule(each["pattern"], each["cause"], each.get("culprit", True)) for each in merged.get("failure", ())
        ),
        files=tuple(layer.path for layer in layers),
    )


def _merge_value(key: str, below: Any, above: Any) -> Any:
    """Tables are laid over one another key by key, what says something about output adds up, the rest is replaced."""
    if below is None:
        return above
    if key in APPENDED_KEYS:
        return [*below, *above]
    return {**below, **above} if isinstance(above, dict) else above


def _match(table: Mapping[str, Any]) -> SiteMatch:
    return SiteMatch(tuple(pattern.lower() for pattern in table["hosts"]), tuple(table.get("variables", {}).items()))


def _chosen(site: Site, why: str) -> Site:
    return replace(site, why=why)
