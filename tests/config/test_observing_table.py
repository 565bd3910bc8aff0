"""The settings that switch something on."""

from shadowcat.config import SETTINGS
from shadowcat.config.observing_table import OBSERVING, SWITCHES


def test_every_section_has_what_switches_it_on():
    assert {setting.section for setting in OBSERVING} == set(SWITCHES)
    keys = {setting.key: setting for setting in SETTINGS}
    for switches in SWITCHES.values():
        for key in switches:
            assert keys[key].said_default == "off"
