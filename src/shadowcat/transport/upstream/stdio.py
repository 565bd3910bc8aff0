"""An MCP server that runs as a child process and talks on its standard streams."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import trio

from ...errors import ConfigError, StreamBroken, UpstreamUnavailable
from ..base import Connector, MessageStream, RawHeaders
from ..lines import LineStream
from .child import Child

log = logging.getLogger(__name__)

_INHERITED = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
"""What a child gets of our environment: what the MCP SDKs pass on, locale, time zone and where to put files."""

_MAX_SPAWNS = 4
"""Processes that are being started at once; each takes a thread meanwhile."""

_MIN_SECRET = 8
"""Characters of a value of the environment that is worth hiding; shorter ones are flags and numbers."""


def _convert_words(words: Iterable[str]) -> tuple[str, ...]:
    if isinstance(words, str):
        raise ConfigError(f"write {words!r} as a list of words: nothing is split, for there is no shell")
    return tuple(words)


def _convert_variables(variables: Mapping[str, str]) -> dict[str, str]:
    return dict(variables)


def _check_text(text: str, what: str) -> None:
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise ConfigError(f"correct {what}: it has a character that no process can be given")


@attrs.frozen(kw_only=True)
class StdioConfig:
    """An MCP server that is run as a child process, one for each message stream."""

    command: tuple[str, ...] = attrs.field(converter=_convert_words)
    """The program and its arguments.  No shell reads them.  A program without a slash is
    looked for on the child's ``PATH``; one with a slash starts at ``cwd``, unless at the root."""

    env: Mapping[str, str] = attrs.field(factory=dict, converter=_convert_variables, repr=False)
    """Variables of the child's environment, in place of inherited ones of that name.
    Errors do not quote their values."""

    inherit: tuple[str, ...] = attrs.field(default=(), converter=_convert_words)
    """Names of our own environment that the child gets, as it gets ``HOME``, ``LANG``, ``LC_*``,
    ``LOGNAME``, ``PATH``, ``SHELL``, ``TERM``, ``TMPDIR``, ``TZ`` and ``USER``.
    Those that are not set when it starts, it does not get."""

    cwd: str | None = attrs.field(default=None, converter=attrs.converters.optional(os.fspath))
    """The child's working directory; ours if None."""

    max_message_size: int = attrs.field(default=16 * 1024 * 1024, validator=attrs.validators.gt(0))
    """Bytes of one message of the server.  A longer one is dropped."""

    write_timeout: float = attrs.field(default=30.0, validator=attrs.validators.gt(0))
    """Seconds in which the server has to read something while a message waits, or it is stopped."""

    stop_timeout: float = attrs.field(default=2.0, validator=attrs.validators.gt(0))
    """Seconds to end by itself when its input is closed, and again when it is sent SIGTERM."""

    @command.validator
    def _check_command(self, _: object, command: tuple[str, ...]) -> None:
        if not command or not command[0]:
            raise ConfigError("name the program to run as the server")
        for word in command:
            _check_text(word, "the command of the server")

    @env.validator
    def _check_env(self, _: object, env: Mapping[str, str]) -> None:
        for name, value in env.items():
            if not name or "=" in name:
                raise ConfigError(f"correct the variable {name!r}: that is no name of a variable")
            _check_text(name, "the name of a variable of the server's environment")
            _check_text(value, f"the value of the variable {name}")

    @cwd.validator
    def _check_cwd(self, _: object, cwd: str | None) -> None:
        if cwd is not None:
            _check_text(cwd, "the working directory of the server")

    def environment(self) -> dict[str, str]:
        """Return the environment of a child that starts now."""
        names = {*_INHERITED, *self.inherit}
        inherited = {
            name: value
            for name, value in os.environ.items()
            # A value in parentheses is a function that bash has exported.
            if (name in names or name.startswith("LC_")) and not value.startswith("()")
        }
        return {**inherited, **self.env}


class StdioConnector(Connector):
    """Starts a child process for each message stream."""

    takes_headers = False

    def __init__(self, config: StdioConfig) -> None:
        self._config = config
        self._spawning = trio.CapacityLimiter(_MAX_SPAWNS)

    def check(self) -> None:
        """See that there is a program to run, now; for when a server starts.  Does not run it.

        Raises:
            ConfigError: There is none, or no such working directory.
        """
        config = self._config
        program = config.command[0]
        if config.cwd is not None and not os.path.isdir(config.cwd):
            raise ConfigError(f"name an existing directory for the server to run in; {config.cwd!r} is none")
        if "/" in program:
            path = Path(config.cwd or ".", program)
            if not path.is_file():
                raise ConfigError(f"correct the path of the server's program; there is no file {str(path)!r}")
            if not os.access(path, os.X_OK):
                raise ConfigError(f"make the server's program executable; {str(path)!r} is not")
        elif shutil.which(program, path=os.pathsep.join(os.get_exec_path(config.environment()))) is None:
            raise ConfigError(f"install {program!r} or write where it is; no directory of PATH has it")

    def open(self, headers: RawHeaders) -> AbstractAsyncContextManager[MessageStream]:
        """Start a child for as long as the block lasts; see `Connector.open`.

        Leaving the block takes twice the ``stop_timeout`` and a second at most.  An
        error of the block passes as it is, in no group.
        """
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[MessageStream, None]:
        child = await self._start()
        # From here to the first task there is no checkpoint, so a child that was started is always watched.
        watching = trio.open_nursery()
        nursery = await watching.__aenter__()
        try:
            nursery.start_soon(child.run)
            yield _ChildStream(child, self._config)
        finally:
            child.stop_soon("the stream was closed")
            try:
                # Not told of the block's error, which it would put into a group.  It waits for
                # `run`, which is bounded, and cannot be cancelled.
                await watching.__aexit__(None, None, None)  # noqa: ASYNC102
            finally:
                child.close()

    async def _start(self) -> Child:
        config = self._config
        async with self._spawning:
            try:
                process = await trio.lowlevel.open_process(
                    config.command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd=config.cwd,
                    env=config.environment(),
                    start_new_session=True,
                )
            except OSError as error:
                log.warning("cannot start %r: %s", config.command[0], error)
                raise UpstreamUnavailable(
                    f"the server process cannot be started ({error.strerror}) and has not seen the request; "
                    "ask whoever runs this proxy to look at its log"
                ) from error
        log.debug("server process %d started", process.pid)
        secrets = {*config.env.values(), *map(os.environ.get, config.inherit)}
        return Child(process, config.stop_timeout, [s for s in secrets if s is not None and len(s) >= _MIN_SECRET])


class _ChildStream(MessageStream):
    def __init__(self, child: Child, config: StdioConfig) -> None:
        self._child = child
        self._lines = LineStream(child.output, child.input, config.max_message_size, config.write_timeout)

    async def send(self, message: bytes) -> None:
        try:
            await self._lines.send(message)
        except StreamBroken as error:
            raise await self._child.explain(f"the server process does not take messages: {error}") from error

    async def receive(self) -> bytes:
        try:
            return await self._lines.receive()
        except StreamBroken as error:
            raise await self._child.explain("the server process has closed its standard output") from error
