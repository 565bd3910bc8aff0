"""Where the admin API listens, and who may use it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from ..errors import ConfigError
from ..transport.downstream import parse_bind

_TOKEN = re.compile(r"[!-~]{16,4096}")


def _check_token(_instance: object, _attribute: object, token: str) -> None:
    # Without a piece of it: this text is logged.
    if not _TOKEN.fullmatch(token):
        raise ConfigError(
            "the admin token must have at least 16 visible ASCII characters and no spaces; "
            "make one with: openssl rand -hex 32"
        )


def _names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ConfigError(f"{names!r} is one host where several are meant; write [{names!r}]")
    return tuple(names)


@attrs.frozen(kw_only=True)
class AdminConfig:
    """The admin API of one proxy process, on a listener of its own."""

    token: str = attrs.field(repr=False, validator=_check_token)
    """Who has it may do everything; at least 16 characters, and as hard to guess as a password has to be."""

    bind: str = attrs.field(default="127.0.0.1:9465")
    """Address and port; anything but loopback is warned of, since the token goes over the wire as it is."""

    allowed_hosts: tuple[str, ...] = attrs.field(default=(), converter=_names)
    """Values of ``Host`` to let in beside loopback names and the address that is listened on."""

    failures_per_second: float = attrs.field(default=10.0, validator=attrs.validators.gt(0))
    """Wrong tokens that are answered in a second; more of them wait, and never keep the right one waiting."""

    @bind.validator
    def _check_bind(self, _: attrs.Attribute[str], value: str) -> None:
        parse_bind(value)
