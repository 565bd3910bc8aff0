"""Looking at a running proxy, and steering it."""

from typing import TYPE_CHECKING
from typing import Any as _Any

from ..lazy import load_on_demand as _load_on_demand
from .config import AdminConfig as AdminConfig

if TYPE_CHECKING:
    from .serve import open_admin as open_admin

_load = _load_on_demand(__name__, {"open_admin": ".serve"})


def __getattr__(name: str) -> _Any:
    return _load(name)
