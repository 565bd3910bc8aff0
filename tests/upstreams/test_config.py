"""What a set may be."""

import pytest

from shadowcat.errors import ConfigError
from shadowcat.transport.upstream import HttpUpstreamConfig, StdioConfig
from shadowcat.upstreams import CheckConfig, Strategy, UpstreamEndpointConfig, UpstreamSetConfig, check_servers
from shadowcat.upstreams.config import as_set

HTTP = HttpUpstreamConfig(url="http://upstream.invalid/mcp")
COMMAND = StdioConfig(command=["shadowcat-no-such-program"])


def endpoint(name="a", upstream=HTTP, **more):
    return UpstreamEndpointConfig(name=name, upstream=upstream, **more)


@pytest.mark.parametrize("name", ["", ".", "..", "a~b", "a/b", "x" * 65, "ä", "a b"])
def test_names_can_stand_in_a_path_and_in_an_id(name):
    with pytest.raises(ConfigError, match="cannot be the name of an endpoint; use up to 64 letters"):
        endpoint(name)


def test_a_set_has_endpoints_and_each_a_name_of_its_own():
    with pytest.raises(ConfigError, match="at least one endpoint"):
        UpstreamSetConfig(endpoints=[])
    with pytest.raises(ConfigError, match="two endpoints are called 'a'"):
        UpstreamSetConfig(endpoints=[endpoint(), endpoint()])


def test_an_unknown_strategy_is_an_error_and_not_the_default():
    assert UpstreamSetConfig(endpoints=[endpoint()], strategy="random").strategy is Strategy.RANDOM
    with pytest.raises(ConfigError, match="no strategy is called 'fastest'; choose one of"):
        UpstreamSetConfig(endpoints=[endpoint()], strategy="fastest")


def test_weights_are_whole_and_positive():
    with pytest.raises(ValueError, match="weight"):
        endpoint(weight=0)


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_a_command_has_no_address_to_check(kind):
    with pytest.raises(ConfigError, match=f"cannot be checked by {kind}"):
        UpstreamSetConfig(endpoints=[endpoint(upstream=COMMAND)], check=CheckConfig(kind=kind))
    UpstreamSetConfig(endpoints=[endpoint(upstream=COMMAND)])
    UpstreamSetConfig(endpoints=[endpoint(upstream=COMMAND)], check=None)


def test_commands_of_a_set_are_checked_too():
    with pytest.raises(ConfigError, match="shadowcat-no-such-program"):
        check_servers(UpstreamSetConfig(endpoints=[endpoint(), endpoint("b", COMMAND)]))
    with pytest.raises(ConfigError, match="shadowcat-no-such-program"):
        check_servers(COMMAND)


def test_a_single_server_is_a_set_that_is_left_alone():
    found = as_set("files", HTTP)
    assert [each.name for each in found.endpoints] == ["files"]
    assert (found.check, found.circuit, found.concurrency.max_in_flight) == (None, None, None)
    assert as_set("files", found) is found
