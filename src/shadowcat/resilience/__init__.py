"""How to go on when something fails."""

from .backoff import Backoff as Backoff
from .backoff import BackoffConfig as BackoffConfig
