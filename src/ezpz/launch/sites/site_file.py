"""The file of a site: TOML text to validated values, and for each error its line."""

from __future__ import annotations

import functools
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from ezpz.errors import SiteFileError, UsageError
from ezpz.launch.launchers.base import installed_launchers, parse_binding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

KEYS = (
    *("description", "accelerators", "visible-devices", "with-devices"),
    *("noise", "match", "options", "cpu-bind", "failure"),
)

_LINE = re.compile(r"at line (\d+)")
_HEADER = re.compile(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?")


@dataclass(frozen=True, slots=True)
class ParsedSiteFile:
    """The values of a file by key, and its path."""

    path: str
    values: Mapping[str, Any]


def parse(text: str, path: str) -> ParsedSiteFile:
    """Return the validated values of a file. Raise SiteFileError, which starts with the file and the line."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        found = _LINE.search(str(e))
        line = int(found[1]) if found else text.rstrip("\n").count("\n") + 1
        raise SiteFileError(f"{path}:{line}: this is no TOML: {e}", hint="mend the file, or remove it") from e
    _Validator(text, path).all(values)
    return ParsedSiteFile(path, values)


@dataclass(frozen=True, slots=True)
class _Validator:
    """Validates the values of a file. Its errors have the line."""

    text: str
    path: str

    def all(self, values: Mapping[str, Any]) -> None:
        checks: dict[str, Callable[[str, Any], None]] = {
            "description": self.check_text,
            "accelerators": self.number,
            "visible-devices": self.check_text,
            "with-devices": self.variables,
            "noise": self.patterns,
            "match": self.matches,
            "options": self.options,
            "cpu-bind": self.bindings,
            "failure": self.failures,
        }
        for key, value in values.items():
            if key not in checks:
                self.fail(key, f"nobody knows the key {key!r}", f"the keys are {', '.join(KEYS)}")
            checks[key](key, value)

    def check_text(self, key: str, value: Any) -> None:
        if not isinstance(value, str):
            self.fail(key, f"{_last_part(key)} must be text, not {value!r}")

    def number(self, key: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self.fail(key, f"{_last_part(key)} must be a whole number, not {value!r}")

    def words(self, key: str, value: Any) -> None:
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            self.fail(key, f"{_last_part(key)} must be a list of texts, not {value!r}")

    def patterns(self, key: str, value: Any) -> None:
        self.words(key, value)
        for pattern in value:
            self.pattern(key, pattern)

    def pattern(self, key: str, value: Any) -> None:
        self.check_text(key, value)
        try:
            re.compile(value)
            re.compile(value.encode())  # output can be other bytes
        except (re.error, ValueError, OverflowError) as e:
            self.fail(key, f"{value!r} is no regular expression: {e}", within=value)

    def table(self, key: str, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self.fail(key, f"{_last_part(key)} must be a table, not {value!r}")
        return value

    def tables(self, key: str, value: Any, needed: tuple[str, ...], allowed: tuple[str, ...]) -> None:
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.fail(key, f"{key} must be a list of tables: [[{key}]]")
        for each in value:
            for name in needed:
                if name not in each:
                    self.fail(key, f"a [[{key}]] has no {name}")
            for name in each:
                if name not in allowed:
                    self.fail(f"{key}.{name}", f"nobody knows the key {name!r}", f"it may be {', '.join(allowed)}")

    def matches(self, key: str, value: Any) -> None:
        self.tables(key, value, ("hosts",), ("hosts", "variables"))
        for each in value:
            self.words(f"{key}.hosts", each["hosts"])
            self.variables(f"{key}.variables", each.get("variables", {}))

    def by_launcher(self, key: str, value: Any) -> Iterator[tuple[str, Any]]:
        """Yield the entries of a table whose keys are launchers, each with its dotted key."""
        for launcher, entry in self.table(key, value).items():
            where = f"{key}.{launcher}"
            if launcher not in _launcher_names():
                self.fail(where, f"there is no launcher {launcher!r}", f"it may be {', '.join(_launcher_names())}")
            yield where, entry

    def options(self, key: str, value: Any) -> None:
        for where, words in self.by_launcher(key, value):
            self.words(where, words)

    def bindings(self, key: str, value: Any) -> None:
        for table, entries in self.by_launcher(key, value):
            for ppn, text in self.table(table, entries).items():
                where = f"{table}.{ppn}"
                if ppn != "default" and not ppn.isdigit():
                    self.fail(where, f"{ppn!r} is neither a number of ranks a node nor 'default'")
                self.check_text(where, text)
                try:
                    parse_binding(text, where)
                except UsageError as e:
                    self.fail(where, e.message)

    def variables(self, key: str, value: Any) -> None:
        for name, text in self.table(key, value).items():
            self.check_text(f"{key}.{name}", text)

    def failures(self, key: str, value: Any) -> None:
        self.tables(key, value, ("pattern", "cause"), ("pattern", "cause", "culprit"))
        for each in value:
            self.pattern(f"{key}.pattern", each["pattern"])
            for group in set(re.compile(each["pattern"]).groupindex) - {"host", "rank"}:
                self.fail(f"{key}.pattern", f"the group {group!r} is neither 'host' nor 'rank'")
            self.check_text(f"{key}.cause", each["cause"])
            if not isinstance(each.get("culprit", True), bool):
                self.fail(f"{key}.culprit", f"culprit must be true or false, not {each['culprit']!r}")

    def fail(self, key: str, what: str, hint: str = "mend the file, or remove it", *, within: str = "") -> NoReturn:
        raise SiteFileError(f"{self.path}:{find_line(self.text, key, within)}: {what}", hint=hint)


@functools.cache
def _launcher_names() -> tuple[str, ...]:
    """Return the names of the launchers that take options."""
    return tuple(dict.fromkeys(launcher.name for launcher in installed_launchers([]) if launcher.rank_variables))


def _last_part(key: str) -> str:
    return key.rpartition(".")[2]


def find_line(text: str, key: str, within: str = "") -> int:
    """Return the line of a dotted key or of `within`, a part of its value; else the line of its table, else 1."""
    table, best, depth = "", 1, 0
    wanted = key.split(".")
    for number, line in enumerate(text.splitlines(), 1):
        if within and (f"'{within}'" in line or f'"{within}"' in line):
            return number
        header = _HEADER.fullmatch(line)
        name = line.partition("=")[0].strip().strip("\"'") if header is None else ""
        table = header[1].replace('"', "") if header else table
        path = [*(part for part in table.split(".") if part), *(part.strip().strip("\"'") for part in name.split("."))]
        path = [part for part in path if part]
        common = len(path) if path and wanted[: len(path)] == path else 0
        if common > depth:
            best, depth = number, common
    return best
