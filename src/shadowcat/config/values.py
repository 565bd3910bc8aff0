"""What flags, variables and a file say together: flags before variables before the file before defaults."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

import attrs

from ..errors import ConfigError
from .kind import Wrong
from .problem import SettingsError
from .setting import Setting

T = TypeVar("T")

_OUT_OF_RANGE = re.compile(r"'(\w+)' must be (>=?|<=?) (\S+): (\S+)")
"""What a validator of attrs says."""

_WORDS = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}


class Origin(IntEnum):
    """Who said it; the greater goes first."""

    DEFAULT = 0
    FILE = 1
    ENVIRONMENT = 2
    FLAG = 3


class Given(NamedTuple):
    """A value that somebody gave."""

    value: Any
    source: str
    """As errors name it: a flag, a variable, or file, line and key."""

    origin: Origin


class Values:
    """The values of the settings of one command.

    Args:
        layers: By key, what was given; the first that has a key counts.
        file: Where the file is, if there is one.
    """

    def __init__(
        self,
        settings: Iterable[Setting],
        *layers: Mapping[str, Given],
        command: str = "reverse",
        file: str | None = None,
    ) -> None:
        self.settings = {setting.key: setting for setting in settings}
        self.command = command
        self.file = file
        self.given: dict[str, Given] = {}
        for layer in reversed(layers):
            self.given.update(layer)

    def __getitem__(self, key: str) -> Any:
        given = self.given.get(key)
        return self.settings[key].default if given is None else given.value

    def with_given(self, given: Mapping[str, Given]) -> Values:
        """Return these values, and *given* in place of those of the same keys."""
        return Values(self.settings.values(), given, self.given, command=self.command, file=self.file)

    def without(self, *keys: str) -> Values:
        """Return these values as if *keys* had not been given."""
        kept = {key: given for key, given in self.given.items() if key not in keys}
        return Values(self.settings.values(), kept, command=self.command, file=self.file)

    def seen_from(self, place: str, name: str) -> Values:
        """Return these values such that what was given in *place* is that of *name*, and nothing else is."""
        moved = {
            name + key[len(place) :]: given
            for key, given in self.given.items()
            if key == place or key.startswith(f"{place}.") or key.startswith(f"{place}[")
        }
        others = {key: given for key, given in self.given.items() if not key.startswith(f"{name}.")}
        return Values(self.settings.values(), moved, others, command=self.command, file=self.file)

    def names_in(self, table: str) -> list[str]:
        """Return the names that the user has chosen in *table*."""
        prefix = f"{table}."
        return [key[len(prefix) :] for key in self.given if key.startswith(prefix) and "." not in key[len(prefix) :]]

    def is_given(self, key: str) -> bool:
        """Whether anybody has said something of it."""
        return key in self.given

    def origin(self, key: str) -> Origin:
        """Return who has said it."""
        return self.given[key].origin if key in self.given else Origin.DEFAULT

    def source(self, key: str) -> str:
        """Return where it was said, or where it could be."""
        if key in self.given:
            return self.given[key].source
        return self.settings[key].flag or key

    def of(self, owner: type) -> Iterator[tuple[Setting, Given]]:
        """Iterate over what was given for fields of *owner*."""
        for key, setting in self.settings.items():
            if setting.owner is owner and key in self.given:
                yield setting, self.given[key]

    def changed(self, other: Values) -> list[str]:
        """Return the keys that have another value in *other*."""
        keys = [*dict.fromkeys([*self.settings, *self.given, *other.given])]
        return [key for key in keys if self._value(key) != other._value(key)]

    def _value(self, key: str) -> object:
        return self[key] if key in self.given or key in self.settings else None

    def make(self, kind: type[T], owner: type | None = None, **fixed: Any) -> T:
        """Return a *kind* with what was given for its fields.

        Args:
            owner: Whose settings these are, if not *kind* itself.
            fixed: Other fields.

        Raises:
            SettingsError: A value is refused; it says where that was given.
        """
        fields: Mapping[str, attrs.Attribute[Any]] = attrs.fields_dict(kind)  # type: ignore[arg-type]
        given = [entry for entry in self.of(owner or kind) if entry[0].attribute in fields]
        # Those that must be there first: without them nothing can be tried.
        given.sort(key=lambda entry: fields[entry[0].attribute].default is not attrs.NOTHING)

        def attempt(count: int) -> T:
            return kind(**fixed, **{setting.attribute: each.value for setting, each in given[:count]})

        try:
            return attempt(len(given))
        except (ValueError, ConfigError) as error:
            said = str(error)
            count = _fewest(attempt, len(given), said)
            raise SettingsError([self._tell(said, given[count - 1][1]) if count else said]) from None

    def _tell(self, said: str, given: Given) -> str:
        found = _OUT_OF_RANGE.fullmatch(said)
        if found is None:
            return f"{given.source}: {said}"
        told = f"{given.source} must be {_WORDS[found[2]]} {found[3]}, not {found[4]}"
        return f"{told}; see shadowcat {self.command} --help" if given.origin is Origin.FLAG else told


def _fewest(attempt: Callable[[int], object], most: int, said: str) -> int:
    """Return with how few values *attempt* fails and says just *said*."""
    for count in range(most):
        try:
            attempt(count)
        except TypeError:
            # One that must be there is not.
            continue
        except (ValueError, ConfigError) as error:
            if str(error) == said:
                return count
    return most


def read_environment(settings: Iterable[Setting], environ: Mapping[str, str]) -> dict[str, Given]:
    """Return what *environ* says; an empty variable says nothing.

    Raises:
        SettingsError: A variable cannot be what its setting is.
    """
    given, problems = {}, []
    for setting in settings:
        if setting.variable is None or not (text := environ.get(setting.variable)):
            continue
        source = f"${setting.variable}"
        try:
            given[setting.key] = Given(setting.kind.parse_variable(text), source, Origin.ENVIRONMENT)
        except Wrong as wrong:
            problems.append(f"{source} {wrong}")
        except ValueError as error:
            problems.append(f"{source} cannot be read as words of a shell: {error}")
    if problems:
        raise SettingsError(problems)
    return given
