"""Reading the settings again while the proxy serves."""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from ..config import SETTINGS, Values, build_beside, build_reverse, pattern_of, problems_of
from ..errors import ConfigError
from ..proxy import ReverseProxyApp, ReverseProxyConfig
from ..telemetry import configure_logging
from ..transport.downstream import ServerTls, TlsConfig, build_context
from .hangup import answer_hangups, ignoring_hangups
from .options import read_values

log = logging.getLogger(__name__)

Apply = Callable[[ReverseProxyConfig], Awaitable[None]]
"""Uses another configuration from now on: all of what can be changed, or none of it and a `ConfigError`."""

_LIVE = frozenset(setting.key for setting in SETTINGS if setting.is_live)
_TLS = frozenset(setting.key for setting in SETTINGS if setting.owner is TlsConfig)
"""Those that are changed if clients use ``https`` before and after; one cannot become the other."""


class Reloader:
    """Reads the settings of *args* again, and has them used.

    Args:
        values: Those that the proxy was started with.
        apply: Uses those that can be changed.
        tls: Has the certificate that clients see, if they use ``https``.
    """

    def __init__(self, args: argparse.Namespace, values: Values, apply: Apply, tls: ServerTls | None = None) -> None:
        self._args = args
        self._started = values
        self._apply = apply
        self._tls = tls

    async def reload(self) -> None:
        """Use what the settings are now; if anything of it is wrong, log that and change nothing.

        Settings that only a restart changes are named in the log.  Cancel safe: what is
        used then are the old or the new ones.
        """
        await trio.lowlevel.checkpoint()
        try:
            values, config = await trio.to_thread.run_sync(read_again, self._args)
            context = build_context(config.listener.tls) if config.listener.tls is not None else None
            await self._apply(config)
        except ConfigError as error:
            log_problems("the settings are not reloaded, and the old ones stay", error)
            return
        configure_logging(values["log.level"], values["log.format"])
        has_tls = self._tls is not None and context is not None
        if self._tls is not None and context is not None:
            self._tls.use(context)
        log.info("the settings are reloaded")
        log_restart(self._started, values, lambda key: is_live(key) and (has_tls or key not in _TLS))


def is_live(key: str) -> bool:
    """Tell whether a reload changes what *key* names: a value, or a table of such values that the user named."""
    pattern = pattern_of(key)
    return pattern in _LIVE or any(live.startswith((f"{pattern}.", f"{pattern}[]")) for live in _LIVE)


def read_again(args: argparse.Namespace) -> tuple[Values, ReverseProxyConfig]:
    """Return what the settings are now, checked as far as that is possible without using them.

    Raises:
        ConfigError: They are wrong.
    """
    from ..config import check_surroundings

    values = read_values(args)
    config = build_reverse(values)
    build_beside(values)
    check_surroundings(values, config)
    return values, config


def log_problems(what: str, error: ConfigError) -> None:
    """Log *what* has come of what is wrong."""
    for problem in problems_of(error):
        log.error("%s: %s", what, problem)


def log_restart(before: Values, after: Values, is_used: Callable[[str], bool]) -> None:
    """Log which settings have been changed and are not used before a restart."""
    if waiting := [key for key in before.changed(after) if not is_used(key)]:
        log.warning("changed in the settings, but needs a restart: %s", ", ".join(waiting))


@asynccontextmanager
async def open_reloading(
    args: argparse.Namespace, values: Values, shutdown: trio.Event, tls: ServerTls | None, app: ReverseProxyApp
) -> AsyncGenerator[None, None]:
    """Reload the settings of *app* at each SIGHUP for as long as the block lasts."""

    async def apply(config: ReverseProxyConfig) -> None:
        await app.reconfigure(config)
        if app.audit is not None:
            from ..telemetry import AuditEvent

            await app.audit.note(AuditEvent.CONFIGURATION_RELOADED)

    reloader = Reloader(args, values, apply, tls)
    with ignoring_hangups(), trio.open_signal_receiver(signal.SIGHUP) as hangups:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_hangups, hangups, reloader.reload, shutdown)
            yield
            nursery.cancel_scope.cancel()
