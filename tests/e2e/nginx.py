"""nginx with a configuration of the documentation, on ports of a test's own."""

import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.child import PATIENCE, ROOT, Child, running

EXAMPLES = ROOT / "docs" / "examples"

AROUND = """
daemon off;
{user}
pid nginx.pid;
events {{ worker_connections 1024; }}
http {{
access_log off;
client_body_temp_path body;
proxy_temp_path proxy;
fastcgi_temp_path fastcgi;
uwsgi_temp_path uwsgi;
scgi_temp_path scgi;
{site}
}}
"""


def find_nginx() -> str:
    """Return where nginx is; Debian keeps it off an ordinary user's path."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    reason = "nginx is not installed (Debian: apt-get install nginx)"
    if found is None and not os.environ.get("CI"):
        pytest.skip(reason)
    assert found is not None, reason
    return found


def wait_for_port(port: int) -> None:
    """Return when somebody can connect."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nobody listens on port {port}"
            time.sleep(0.02)


def adapted(text: str, changes: Mapping[str, str]) -> str:
    """Replace each key by its value; a key that is not there is an error."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@contextmanager
def running_nginx(folder: Path, site: str) -> Iterator[Child]:
    """Run nginx with *site* inside its ``http`` block, for as long as the block lasts."""
    # As another user its workers could not write to a folder of ours.
    path = folder / "nginx.conf"
    path.write_text(AROUND.format(site=site, user="user root root;" if os.geteuid() == 0 else ""))
    with running([find_nginx(), "-p", str(folder), "-e", "stderr", "-c", str(path)]) as child:
        yield child
