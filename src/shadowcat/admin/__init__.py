"""Looking at a running proxy, and steering it."""

from .config import AdminConfig as AdminConfig
from .serve import open_admin as open_admin
