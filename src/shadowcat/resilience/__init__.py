"""How to go on when something fails."""

from .backoff import Backoff as Backoff
from .backoff import BackoffConfig as BackoffConfig
from .breaker import Circuit as Circuit
from .breaker import CircuitConfig as CircuitConfig
from .breaker import CircuitState as CircuitState
from .breaker import Permit as Permit
from .ratelimit import MICROSECONDS as MICROSECONDS
from .ratelimit import Allowance as Allowance
from .ratelimit import RateLimit as RateLimit
from .ratelimit import RateLimiter as RateLimiter
from .ratelimit import allowance_at as allowance_at
from .ratelimit import now_in_microseconds as now_in_microseconds
from .ratelimit import read_rate_limit as read_rate_limit
