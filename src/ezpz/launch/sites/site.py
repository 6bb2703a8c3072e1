"""Sites: the description of a machine in a data file, included in ezpz or of the user, chosen by host name."""

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
    """A rule that identifies a site: a host name matches a pattern of `hosts`, and each variable its pattern."""

    hosts: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()

    def matching_name(self, names: Sequence[str], environ: Mapping[str, str]) -> str:
        """Return the first name that matches if the variables match, too, else ""."""
        if not all(fnmatchcase(environ.get(name, ""), pattern) for name, pattern in self.variables):
            return ""
        return next((name for name in names for pattern in self.hosts if fnmatchcase(name.lower(), pattern)), "")


@dataclass(frozen=True, slots=True)
class FailureRule:
    """A pattern for a line of output that tells why a run failed, and the cause. It can have groups `host` and `rank`.

    Attributes:
        is_cause: Whether the node of the host or rank is the cause; otherwise it failed because another node did.
    """

    pattern: str
    cause: str
    is_cause: bool = True


@dataclass(frozen=True, slots=True)
class Site:
    """The description of a machine.

    Attributes:
        accelerators: The number per node, 0 if it is unknown.
        visible_devices: The variable that names the accelerators of a rank.
        device_variables: Variables to set if `visible_devices` is set.
        match: The rules that identify the site.
        options: Additional options of each launcher.
        cpu_bind: For each launcher, --cpu-bind for each number of ranks per node ("12"), or "default".
        noise: Patterns of lines to hide.
        failures: Patterns of lines that tell why a run failed.
        why: Why this site was chosen.
        files: The files that it was read from.
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
        """Return the --cpu-bind for so many ranks per node, or ""."""
        table = self.cpu_bind.get(launcher, {})
        return table.get(str(ppn), table.get(DEFAULT, ""))


def choose_site(
    names: Sequence[str], environ: Mapping[str, str], *, wanted: str | None = None, directory: str | None = None
) -> Site:
    """Return the site that `wanted` names, else the most specific one that matches, else "default".

    All files are read, so that an invalid one is reported at once. A user's file is merged with the included file of
    the same name.

    Args:
        names: Host names.
        environ: The environment.
        wanted: The name of a site.
        directory: The directory with the user's files; by default `user_directory`.

    Raises:
        UsageError: The site does not exist.
        SiteFileError: A file is invalid.
    """
    directory = user_directory(environ) if directory is None else directory
    packaged, users = _packaged_files(), _user_files(directory)
    sites = {name: _merge_layers(name, packaged, users) for name in sorted({*packaged, *users})}
    if wanted is not None:
        if wanted not in sites:
            raise UsageError(f"--site '{wanted}': there is no such site", hint=f"choose one of: {', '.join(sites)}")
        return replace(sites[wanted], why="it was asked for")
    fitting = [
        (name in users, len(match.variables), name, hit)
        for name, site in sites.items()
        for match in site.match
        if (hit := match.matching_name(_spellings(names), environ))
    ]
    if not fitting:
        return replace(sites[DEFAULT], why=f"no site has a host named {' or '.join(names)}")
    *_, name, hit = max(fitting)
    return replace(sites[name], why=f"the host name {hit}")


def user_directory(environ: Mapping[str, str]) -> str:
    """Return the directory with the files of the user: $XDG_CONFIG_HOME/ezpz/sites, by default in ~/.config."""
    base = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):  # the XDG Base Directory Specification requires an absolute path
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return os.path.join(base, "ezpz", "sites")


def _spellings(names: Sequence[str]) -> tuple[str, ...]:
    """Return each name as it is and in short form, for both kinds of patterns."""
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
    name: str, packaged: Mapping[str, site_file.ParsedSiteFile], users: Mapping[str, site_file.ParsedSiteFile]
) -> Site:
    """Return a site from all files about it. Later files have priority: the two defaults, then its own two."""
    layers = [files[key] for key in dict.fromkeys((DEFAULT, name)) for files in (packaged, users) if key in files]
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
    """Return the value of a key from two layers: tables are merged, patterns are appended, the rest is replaced."""
    if below is None:
        return above
    if key in APPENDED_KEYS:
        return [*below, *above]
    return {**below, **above} if isinstance(above, dict) else above


def _match(table: Mapping[str, Any]) -> SiteMatch:
    return SiteMatch(tuple(pattern.lower() for pattern in table["hosts"]), tuple(table.get("variables", {}).items()))
