"""Several things that are wrong, told together."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

from ..errors import ConfigError


class SettingsError(ConfigError):
    """Settings are wrong, each with a sentence that names where it was said."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def problems_of(error: ConfigError) -> tuple[str, ...]:
    """Return the sentences of *error*."""
    return error.problems if isinstance(error, SettingsError) else (str(error),)


class Problems:
    """What was found so far."""

    def __init__(self) -> None:
        self._found: list[str] = []

    @contextmanager
    def collecting(self) -> Generator[None, None, None]:
        """Go on after the block though a `ConfigError` ends it, and remember that."""
        try:
            yield
        except ConfigError as error:
            self._found += [text for text in problems_of(error) if text not in self._found]

    def check(self) -> None:
        """Raise what was found.

        Raises:
            SettingsError: Something was.
        """
        if self._found:
            raise SettingsError(self._found)
