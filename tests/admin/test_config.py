"""What the admin API is told."""

import pytest

from shadowcat.admin import AdminConfig
from shadowcat.errors import ConfigError

SECRET = "correct-horse-battery"


def test_the_token_is_in_no_text():
    config = AdminConfig(token=SECRET)
    assert SECRET not in repr(config)
    assert SECRET not in str(config)


@pytest.mark.parametrize(
    "token", ["", "fifteen-letters", "with a space in it, long", "ünïcödé-is-no-header", "new\nline" * 4]
)
def test_a_bad_token_is_refused_without_being_told(token):
    with pytest.raises(ConfigError, match="openssl rand -hex 32") as excinfo:
        AdminConfig(token=token)
    assert not token or token not in str(excinfo.value)


@pytest.mark.parametrize(
    "fields", [{"bind": "9465"}, {"allowed_hosts": "one"}, {"failures_per_second": 0}], ids=lambda f: next(iter(f))
)
def test_a_bad_setting_is_refused(fields):
    with pytest.raises((ConfigError, ValueError)):
        AdminConfig(token=SECRET, **fields)
