"""Several processes that serve one address: a supervisor, and its workers."""

from .supervisor import SupervisorConfig as SupervisorConfig
from .supervisor import supervise as supervise
