"""Who sends a request: an address, also behind proxies that are trusted to tell it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

import attrs

from ..errors import ConfigError
from ..protocol import Headers

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FORWARDED_HEADERS = ("x-forwarded-for", "forwarded")

_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
# Nothing may match in two ways, or a client could have us try them all.
_PARAMETER = re.compile(r'\s*([^=;\s"]+)\s*=(?:\s*"((?:[^"\\]|\\.)*)"\s*|([^;"]*))(?:;|$)')
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]+)?|([0-9.]+):[0-9]+")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_MAX_HOPS = 64
_LONG = 128


def read_networks(networks: Iterable[str | Network]) -> tuple[Network, ...]:
    """Return *networks*, each an address or, as ``10.0.0.0/8``, all that begin alike.

    Raises:
        ConfigError: One of them is neither.
    """
    if isinstance(networks, str):
        raise ConfigError(f"{networks!r} is one network where several are meant; write [{networks!r}]")
    found = []
    for network in networks:
        try:
            found.append(ipaddress.ip_network(network))
        except ValueError as error:
            raise ConfigError(f"{network!r} is no network of trusted proxies, as 10.0.0.0/8 is: {error}") from None
    return tuple(found)


@attrs.frozen
class ClientAddresses:
    """Finds out where requests come from.

    A header says so only if the peer is a trusted proxy.  It is read from its end, where the
    last proxy has written: the first address that is not a trusted proxy's is the client's.
    What stands before it anybody may have written.
    """

    trusted: tuple[Network, ...] = ()
    header: bytes = b"x-forwarded-for"
    _remembered: Callable[[str, bytes], str] = attrs.field(init=False, repr=False, eq=False)

    def find(self, peer: str | None, headers: Headers) -> str | None:
        """Return the address of the client; None if there is no telling.

        Args:
            peer: The address that the connection comes from.
        """
        if not self.trusted or peer is None or self.header not in headers:
            return peer
        value = headers[self.header]
        # What is long is rare, and not worth keeping.
        return (self._remembered if len(value) <= _LONG else self._find)(peer, value)

    @_remembered.default
    def _remember(self) -> Callable[[str, bytes], str]:
        return lru_cache(maxsize=4096)(self._find)

    def _find(self, peer: str, value: bytes) -> str:
        address = _parse(peer)
        if address is None or not self._is_trusted(address):
            return peer
        for hop in self._hops(value.decode("latin-1")):
            found = _parse(hop)
            if found is None:
                break  # hidden, or made up: who passed it on is all that is known
            address = found
            if not self._is_trusted(address):
                break
        return str(address)

    def _is_trusted(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self.trusted)

    def _hops(self, value: str) -> list[str]:
        """Return what each proxy says that it got the request from, the last proxy first."""
        if self.header == b"x-forwarded-for":
            return [_without_port(hop.strip()) for hop in reversed(value.split(",")[-_MAX_HOPS:])]
        return [_without_port(_named_in(element)) for element in reversed(_ELEMENT.findall(value)[-_MAX_HOPS:])]


@lru_cache(maxsize=4096)
def counted_as(address: str) -> str:
    """Return what all addresses of one client have in common: of IPv6, its /64.

    IPv4 that comes inside of IPv6 is IPv4.
    """
    if ":" not in address:
        return address
    found = _parse(address)
    if found is None or found.version == 4:
        return str(found or address)
    return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))


def _parse(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _named_in(element: str) -> str:
    """Return what an element of ``Forwarded`` says behind ``for=``; nothing if it is malformed."""
    position = 0
    while position < len(element):
        parameter = _PARAMETER.match(element, position)
        if parameter is None:
            return ""
        if parameter[1].lower() == "for":
            return (parameter[3] if parameter[2] is None else parameter[2]).strip()
        position = parameter.end()
    return ""


def _without_port(hop: str) -> str:
    found = _WITH_PORT.fullmatch(hop)
    return (found[1] or found[2] or "") if found else hop
