"""Which server a request means that names none."""

import pytest

from shadowcat import ServerRule
from shadowcat.errors import ConfigError
from shadowcat.proxy.rules import choose_server

HEADERS = {b"host": b"Files.Example:8080", b"x-tenant": b"acme"}


@pytest.mark.parametrize("host", ["files.example", "files.example:8080", "FILES.example"])
def test_a_host_matches_in_any_case_and_with_or_without_its_port(host):
    assert ServerRule(server="a", host=host).matches(HEADERS)


@pytest.mark.parametrize("host", ["files.example:8081", "mail.example", "example", "", "8080"])
def test_another_host_does_not(host):
    assert not ServerRule(server="a", host=host).matches(HEADERS)


def test_a_host_may_be_an_address():
    assert ServerRule(server="a", host="[::1]").matches({b"host": b"[::1]:80"})
    assert ServerRule(server="a", host="[::1]").matches({b"host": b"[::1]"})


def test_a_header_is_compared_to_the_letter():
    assert ServerRule(server="a", header="X-Tenant", value="acme").matches(HEADERS)
    assert not ServerRule(server="a", header="X-Tenant", value="Acme").matches(HEADERS)
    assert not ServerRule(server="a", header="X-Team", value="acme").matches(HEADERS)


def test_all_that_a_rule_says_must_be_so():
    assert ServerRule(server="a", host="files.example", header="x-tenant", value="acme").matches(HEADERS)
    assert not ServerRule(server="a", host="mail.example", header="x-tenant", value="acme").matches(HEADERS)


def test_the_first_rule_that_matches_decides():
    rules = [
        ServerRule(server="a", host="mail.example"),
        ServerRule(server="b", host="files.example"),
        ServerRule(server="c", header="x-tenant", value="acme"),
    ]
    assert choose_server(rules, HEADERS, "default") == "b"
    assert choose_server(rules, {b"x-tenant": b"acme"}, "default") == "c"
    assert choose_server(rules, {}, "default") == "default"
    assert choose_server(rules, {}, None) is None


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({}, "matches nothing; give it a host"),
        ({"header": "x"}, "needs both, header and value"),
        ({"value": "x"}, "needs both, header and value"),
        ({"header": "a b", "value": "x"}, "no header name"),
    ],
)
def test_a_rule_that_makes_no_sense_is_a_config_error(setting, said):
    with pytest.raises(ConfigError, match=said):
        ServerRule(server="a", **setting)
