"""Other settings for a proxy that runs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import trio

from ..upstreams import UpstreamSets
from .limits import Limits
from .servers import Reception

if TYPE_CHECKING:
    from .reverse import ReverseProxyConfig

log = logging.getLogger(__name__)

_TAKEN = frozenset({"upstream", "servers", "rules", "limits"})
"""The settings that take effect at once."""


class Reconfiguration:
    """Changes what can be changed while clients are served."""

    def __init__(
        self, config: ReverseProxyConfig, upstreams: UpstreamSets, reception: Reception, limits: Limits
    ) -> None:
        self._config = config
        self._upstreams = upstreams
        self._reception = reception
        self._limits = limits
        self._changing = trio.Lock()

    async def apply(self, config: ReverseProxyConfig) -> None:
        """See `ReverseProxyApp.reconfigure`."""
        async with self._changing:
            # Checked anew: the paths are still the old ones.
            wanted = attrs.evolve(self._config, **{name: getattr(config, name) for name in _TAKEN})
            await self._upstreams.reconfigure(wanted.upstreams)
            self._reception.arrange(wanted)
            self._limits.reconfigure(wanted.limits)
            self._config = wanted
        fields = [field.name for field in attrs.fields(type(config)) if field.name not in _TAKEN]
        if later := [name for name in fields if getattr(config, name) != getattr(wanted, name)]:
            log.warning("the proxy takes other settings of %s when it is started again only", ", ".join(later))
