"""``shadowcat reverse``: serve an MCP server's URL."""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import trio

from ..auth import OriginConfig
from ..errors import ConfigError
from ..proxy import EndpointConfig, RecoveryConfig, ReverseProxyConfig, serve_reverse_proxy
from ..session import (
    LogLimits,
    SessionConfig,
    StorageBackend,
    StorageConfig,
    StreamConfig,
)
from ..transport.downstream import ListenerConfig, is_loopback, parse_bind
from ..transport.upstream import HttpUpstreamConfig
from .workers import SupervisorConfig, check_workers, supervise

if TYPE_CHECKING:
    from ..session import RedisConfig, SqliteConfig

log = logging.getLogger(__name__)

_EXAMPLE = """\
example:
  shadowcat reverse --bind 127.0.0.1:8080 --upstream http://127.0.0.1:9000/mcp

Clients then use http://127.0.0.1:8080/mcp instead of the server's own URL.
The first SIGINT or SIGTERM lets calls finish, the second stops at once.
"""

_STORES = tuple(backend.value for backend in StorageBackend)
_FALLBACKS = ("none", "memory")

_OPTIONS = {
    "max_body_size": "--max-body-size",
    "max_sessions": "--max-sessions",
    "max_age": "--session-max-age",
    "max_idle": "--session-idle-timeout",
    "heartbeat_interval": "--heartbeat-interval",
    "connect_timeout": "--connect-timeout",
    "answer_timeout": "--answer-timeout",
    "shutdown_timeout": "--shutdown-timeout",
}
_STREAM_OPTIONS = {
    "max_events": "--replay-events",
    "max_bytes": "--replay-bytes",
    "max_age": "--replay-age",
    "linger": "--linger",
}
_OUT_OF_RANGE = re.compile(r"'(\w+)' must be (>=?) (\S+): (\S+)")
"""What a validator of attrs says."""

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_parser(commands: Subparsers) -> argparse.ArgumentParser:
    """Add the command to *commands* and return its parser."""
    parser = commands.add_parser(
        "reverse",
        help="serve an MCP server's URL",
        description="Serve an MCP server over Streamable HTTP, with sessions of our own.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--upstream", required=True, metavar="URL", help="the MCP server, with its path")
    parser.add_argument("--bind", default="127.0.0.1:8080", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--ca-file", metavar="PEM", help="trust these authorities for an https upstream")
    parser.add_argument("--path", default="/mcp", help="where clients find the endpoint; default: %(default)s")
    _add_number(parser, "--workers", int, 1, "processes that serve; more than 1 need the sqlite or redis store")
    _add_header_options(parser)
    _add_storage(parser)
    _add_streams(parser)
    _add_limits(parser)
    parser.set_defaults(run=run)
    return parser


def _add_header_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("headers", "repeat an option to give several values")
    group.add_argument(
        "--allow-host", action="append", default=[], metavar="HOST", help="let in this Host beside loopback names"
    )
    group.add_argument(
        "--allow-origin", action="append", default=[], metavar="ORIGIN", help="let in web pages of this origin"
    )
    group.add_argument(
        "--forward-header",
        action="append",
        default=[],
        metavar="NAME",
        help="pass this request header upstream, for example Authorization; credentials never pass otherwise",
    )
    group.add_argument(
        "--upstream-header", action="append", default=[], metavar="NAME:VALUE", help="send this header upstream"
    )
    group.add_argument(
        "--upstream-header-env",
        action="append",
        default=[],
        metavar="NAME=VARIABLE",
        help="send this header upstream, its value taken from the environment: for secrets",
    )


def _add_storage(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "sessions", "each option can also be set in the environment, --sqlite-path as $SHADOWCAT_SQLITE_PATH"
    )
    group.add_argument("--store", choices=_STORES, help="where sessions are kept; default: memory")
    group.add_argument("--sqlite-path", metavar="FILE", help="the file of the sqlite store; made if there is none")
    group.add_argument("--redis-url", metavar="URL", help="the server of the redis store: redis://HOST:PORT/DATABASE")
    group.add_argument("--redis-prefix", metavar="PREFIX", help="of every key in Redis; default: shadowcat")
    group.add_argument(
        "--store-fallback",
        choices=_FALLBACKS,
        help="while Redis cannot be reached, refuse (none) or go on from memory; default: none",
    )


def _add_streams(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("streams", "what is kept of event streams, for clients that come back")
    add = partial(_add_number, group)
    add("--replay-events", int, 1000, "newest events kept of a stream")
    add("--replay-bytes", int, 1024 * 1024, "bytes of those")
    add("--replay-age", _finite, 300.0, "seconds that they are kept")
    add("--linger", _finite, 60.0, "seconds that the upstream is read for a client that has left")
    group.add_argument(
        "--no-session-recovery",
        action="store_true",
        help="pass on the 404 of an upstream that has lost a session, instead of opening another there",
    )


def build_storage(args: argparse.Namespace, environ: Mapping[str, str]) -> StorageConfig:
    """Return the store that *args* choose, and *environ* where they say nothing.

    Raises:
        ConfigError: They contradict each other.
    """
    store = args.store or _choice(environ, "SHADOWCAT_STORE", _STORES)
    fallback = args.store_fallback or _choice(environ, "SHADOWCAT_STORE_FALLBACK", _FALLBACKS)
    path, url, prefix = args.sqlite_path, args.redis_url, args.redis_prefix
    # What the environment says of a store that is not chosen is for another program.
    if store == "sqlite":
        path = path or environ.get("SHADOWCAT_SQLITE_PATH")
    if store == "redis":
        url, prefix = url or environ.get("SHADOWCAT_REDIS_URL"), prefix or environ.get("SHADOWCAT_REDIS_PREFIX")
    if prefix and not url:
        raise ConfigError("--redis-prefix goes with --redis-url; give both or neither")
    return StorageConfig(
        backend=StorageBackend(store),
        sqlite=_sqlite(path) if path else None,
        redis=_redis(url, prefix) if url else None,
        has_fallback=fallback == "memory",
    )


def _sqlite(path: str) -> SqliteConfig:
    # To import a store takes a while; only those pay who use it.
    from ..session import SqliteConfig

    return SqliteConfig(path=path)


def _redis(url: str, prefix: str | None) -> RedisConfig:
    from ..session import RedisConfig

    return RedisConfig(url=url, prefix=prefix) if prefix else RedisConfig(url=url)


def _choice(environ: Mapping[str, str], name: str, choices: Sequence[str]) -> str:
    value = environ.get(name) or choices[0]
    if value not in choices:
        raise ConfigError(f"${name} is {value!r}; set it to one of: {', '.join(choices)}")
    return value


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = partial(_add_number, parser.add_argument_group("limits"))
    add("--max-body-size", int, 4 * 1024 * 1024, "bytes of a request body")
    add("--max-sessions", int, 10_000, "sessions open at once")
    add("--session-max-age", float, math.inf, "seconds after which a session ends though it is used")
    add("--session-idle-timeout", float, 3600.0, "seconds after which an unused session ends")
    add("--heartbeat-interval", float, 15.0, "seconds of silence before a comment on an event stream")
    add("--connect-timeout", float, 5.0, "seconds to connect to the upstream")
    add("--answer-timeout", float, 300.0, "seconds until the upstream begins to answer a call")
    add("--shutdown-timeout", float, 10.0, "seconds that calls have to finish at shutdown")


def _add_number(
    group: argparse._ActionsContainer, name: str, kind: Callable[[str], object], default: object, text: str
) -> None:
    group.add_argument(name, type=kind, default=default, metavar="N", help=f"{text}; default: %(default)s")


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, not {text}")
    return value


async def run(args: argparse.Namespace, shutdown: trio.Event) -> None:
    """Serve until *shutdown* is set."""
    config = build_config(args)
    host, _ = parse_bind(args.bind)
    if not is_loopback(host):
        log.warning(
            "listening on %s: anyone who can reach it can use the upstream; "
            "clients that use another host name than loopback need --allow-host",
            host,
        )

    serve = partial(serve_reverse_proxy, config, shutdown=shutdown)
    if args.workers > 1:
        workers = SupervisorConfig(
            count=args.workers,
            arguments=args.argv,
            listener=config.listener,
            shutdown_timeout=config.shutdown_timeout,
        )
        serve = partial(supervise, workers, shutdown)
    async with trio.open_nursery() as nursery:
        for url in await nursery.start(serve):
            print(f"shadowcat: serving MCP at {url}", flush=True)


def build_config(args: argparse.Namespace) -> ReverseProxyConfig:
    """Return what *args* say, checked.

    Raises:
        ConfigError: A value is out of range or malformed.
    """
    with _naming(_OPTIONS):
        config = ReverseProxyConfig(
            upstream=HttpUpstreamConfig(
                url=args.upstream,
                headers=[*map(_parse_header, args.upstream_header), *map(_read_header, args.upstream_header_env)],
                connect_timeout=args.connect_timeout,
                answer_timeout=args.answer_timeout,
                ca_file=args.ca_file,
            ),
            listener=ListenerConfig(bind=args.bind),
            path=args.path,
            endpoint=EndpointConfig(
                max_body_size=args.max_body_size,
                heartbeat_interval=args.heartbeat_interval,
                forward_headers=args.forward_header,
            ),
            sessions=SessionConfig(
                max_sessions=args.max_sessions,
                max_idle=args.session_idle_timeout,
                max_age=args.session_max_age,
                streams=_build_streams(args),
            ),
            recovery=RecoveryConfig(is_enabled=not args.no_session_recovery),
            storage=build_storage(args, os.environ),
            origin=OriginConfig(allowed_origins=args.allow_origin, allowed_hosts=args.allow_host),
            shutdown_timeout=args.shutdown_timeout,
        )
    check_workers(args.workers, config.storage, config.upstream)
    return config


def _build_streams(args: argparse.Namespace) -> StreamConfig:
    with _naming(_STREAM_OPTIONS):
        limits = LogLimits(max_events=args.replay_events, max_bytes=args.replay_bytes, max_age=args.replay_age)
        return StreamConfig(limits=limits, linger=args.linger)


@contextmanager
def _naming(options: Mapping[str, str]) -> Generator[None, None, None]:
    """Say what is wrong with a setting of the library by the option that sets it."""
    try:
        yield
    except ValueError as error:
        said = str(error)
        if (found := _OUT_OF_RANGE.fullmatch(said)) is not None and found[1] in options:
            bound = "at least" if found[2] == ">=" else "more than"
            said = f"{options[found[1]]} must be {bound} {found[3]}, not {found[4]}"
        raise ConfigError(f"{said}; see shadowcat reverse --help") from None


def _parse_header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator:
        raise ConfigError(f"--upstream-header {name!r} has no value; write NAME:VALUE")
    return name.strip(), value.strip()


def _read_header(text: str) -> tuple[str, str]:
    name, _, variable = text.partition("=")
    value = os.environ.get(variable)
    if not value:
        raise ConfigError(f"--upstream-header-env {text!r}: the variable {variable!r} is not set; write NAME=VARIABLE")
    return name.strip(), value
