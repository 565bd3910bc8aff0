"""What is told about a running proxy."""

from .logs import FORMATS as FORMATS
from .logs import LEVELS as LEVELS
from .logs import configure_logging as configure_logging
