"""Both generations of the official TypeScript SDK's client, in each era they know, through the proxy."""

import pytest

from tests.e2e.child import Child
from tests.e2e.conftest import Run

pytestmark = pytest.mark.e2e

MODES = [
    pytest.param(("sdk1.mjs", "@modelcontextprotocol/sdk"), "legacy", id="first-legacy"),
    pytest.param(("sdk2.mjs", "@modelcontextprotocol/client"), "legacy", id="second-legacy"),
    pytest.param(("sdk2.mjs", "@modelcontextprotocol/client"), "auto", id="second-auto"),
]


@pytest.mark.parametrize(("script", "mode"), MODES)
def test_the_typescript_client_does_all_it_can_with_a_python_server(
    run: Run, url: str, upstream: Child, script: tuple[str, str], mode: str
) -> None:
    checks = run(*script, url, "ours", mode)
    assert {"connect", "the server asks the user", "list_changed is heard", "end"} <= set(checks)
    name = "sdk1" if script[0] == "sdk1.mjs" else f"sdk2-{mode}"
    upstream.wait_for(f"^cancelled typescript-{name}$")


@pytest.mark.parametrize(("script", "mode"), MODES)
def test_the_typescript_client_does_all_it_can_with_a_typescript_server(
    run: Run, everything_url: str, script: tuple[str, str], mode: str
) -> None:
    """This server is of the legacy era, so ``auto`` has to find that out and fall back."""
    checks = run(*script, everything_url, "everything", mode)
    assert {"connect", "the era is legacy", "the server asks for roots, on the listening stream"} <= set(checks)
