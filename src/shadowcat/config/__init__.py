"""Settings: one table of them, from which flags, variables, the file and their documentation come."""

from typing import TYPE_CHECKING
from typing import Any as _Any

from ..lazy import load_on_demand as _load_on_demand
from .build import build_forward as build_forward
from .build import build_listening as build_listening
from .build import build_reverse as build_reverse
from .kind import Wrong as Wrong
from .observing import BesideConfig as BesideConfig
from .observing import build_beside as build_beside
from .problem import Problems as Problems
from .problem import SettingsError as SettingsError
from .problem import problems_of as problems_of
from .setting import FORWARD as FORWARD
from .setting import REVERSE as REVERSE
from .setting import Setting as Setting
from .setting import pattern_of as pattern_of
from .setting import tell as tell
from .table import SECTIONS as SECTIONS
from .table import SETTINGS as SETTINGS
from .table import settings_of as settings_of
from .values import Given as Given
from .values import Origin as Origin
from .values import Values as Values
from .values import read_environment as read_environment

if TYPE_CHECKING:
    from .file import read_file as read_file
    from .file import read_text as read_text
    from .reference import write_reference as write_reference
    from .schema import build_schema as build_schema
    from .shown import show_values as show_values
    from .shown import without_query as without_query
    from .surroundings import check_surroundings as check_surroundings

_load = _load_on_demand(
    __name__,
    {
        "read_file": ".file",
        "read_text": ".file",
        "write_reference": ".reference",
        "build_schema": ".schema",
        "show_values": ".shown",
        "without_query": ".shown",
        "check_surroundings": ".surroundings",
    },
)


def __getattr__(name: str) -> _Any:
    return _load(name)
