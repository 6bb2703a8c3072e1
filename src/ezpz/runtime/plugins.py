"""Named implementations from an entry-point group. Plugins of third parties are treated like built-in ones."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ezpz.errors import PluginError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Registry(Generic[T]):
    """The implementations of one interface, found by name and loaded only when needed.

    Attributes:
        group: the entry-point group
        noun: what a user calls one of them ("strategy", "engine")
    """

    def __init__(self, group: str, noun: str) -> None:
        self.group = group
        self.noun = noun
        self._found: dict[str, EntryPoint] | None = None

    def names(self) -> tuple[str, ...]:
        """Return every declared name, sorted. Nothing is loaded. Raises PluginError if two plugins share a name."""
        return tuple(sorted(self._entry_points()))

    def load(self, name: str) -> T:
        """Return the object with this name. Raises UsageError for an unknown name, PluginError for a broken plugin."""
        found = self._entry_points()
        if name not in found:
            raise UsageError(
                f"--{self.noun} '{name}': there is no such {self.noun}",
                hint=f"choose one of: {', '.join(self.names())}",
            )
        try:
            loaded: Any = found[name].load()
        except (ImportError, AttributeError) as e:
            raise PluginError(f"{self.noun} '{name}' ({found[name].value}) cannot be loaded: {e}") from e
        result: T = loaded
        return result

    def _entry_points(self) -> dict[str, EntryPoint]:
        if self._found is None:
            from importlib.metadata import entry_points

            points = tuple(entry_points(group=self.group))
            reject_duplicates(self.noun, points)
            self._found = {point.name: point for point in points}
        return self._found


def reject_duplicates(noun: str, points: tuple[EntryPoint, ...]) -> None:
    """Raise PluginError if two different entry points have one name. One that is on sys.path twice counts once."""
    counts = Counter(name for name, _ in {(point.name, point.value) for point in points})
    for name, count in counts.items():
        if count > 1:
            values = ", ".join(sorted({p.value for p in points if p.name == name}))
            raise PluginError(
                f"{count} plugins declare the {noun} '{name}': {values}", hint="uninstall all but one of them"
            )
