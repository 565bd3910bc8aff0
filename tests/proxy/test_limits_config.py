"""Limits as they are set, and what cannot be one."""

from ipaddress import ip_network

import pytest

from shadowcat import LimitsConfig, RateLimit
from shadowcat.errors import ConfigError


def test_there_are_none_by_default():
    assert LimitsConfig().by_name() == {}


def test_all_have_the_names_that_they_are_set_by():
    config = LimitsConfig(
        total="1000/s",
        per_client="100/s burst 20",
        per_session=RateLimit(60, 60),
        per_method={"tools/list": "6/min", "*": "50/s"},
        per_tool={"search": "10/min"},
        trusted_proxies=["10.0.0.0/8", "::1"],
        client_header="Forwarded",
    )
    assert config.by_name() == {
        "total": RateLimit(1000),
        "per_client": RateLimit(100, 1, 20),
        "per_session": RateLimit(60, 60),
        "per_method.tools/list": RateLimit(6, 60),
        "per_method.*": RateLimit(50),
        "per_tool.search": RateLimit(10, 60),
    }
    assert config.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1"))
    assert config.client_header == "forwarded"


@pytest.mark.parametrize(
    "wrong",
    [
        {"total": "many"},
        {"per_client": "0/s"},
        {"per_method": {"": "1/s"}},
        {"per_client": 100},
        {"per_client": False},
        {"per_tool": {"search": None}},
        {"per_tool": "10/s"},
        {"per_tool": {"search": "1 per second"}},
        {"per_tool": {"x" * 129: "1/s"}},
        {"trusted_proxies": ["everybody"]},
        {"trusted_proxies": "10.0.0.0/8"},
        {"client_header": "x-real-ip"},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong):
    """At the start, and not by letting everybody pass."""
    with pytest.raises(ConfigError):
        LimitsConfig(**wrong)


def test_a_bound_of_nothing_is_refused():
    with pytest.raises(ValueError, match="max_keys"):
        LimitsConfig(max_keys=0)
