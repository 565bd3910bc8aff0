"""A server with a name has what the one without has, but what holds for all."""

from shadowcat.config import SETTINGS
from shadowcat.config.servers_table import SHARED, with_names
from shadowcat.config.table import UPSTREAM


def test_named_server_has_the_same_keys():
    keys = {setting.key for setting in SETTINGS}
    unnamed = {key.partition(".")[2] for key in keys if key.startswith("upstream.")}
    named = {key.removeprefix("servers.*.") for key in keys if key.startswith("servers.*.")}
    assert unnamed - named == set(SHARED)
    assert named <= unnamed


def test_nothing_but_a_file_names_a_server():
    for setting in with_names(UPSTREAM):
        assert (setting.flag, setting.variable, setting.is_live) == (None, None, True)
