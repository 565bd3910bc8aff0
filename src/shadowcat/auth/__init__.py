"""Who may talk to us."""

from .origin import OriginConfig as OriginConfig
from .origin import OriginPolicy as OriginPolicy
