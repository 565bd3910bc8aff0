"""What tests of workers share: the worker that starts at once."""

import sys
from pathlib import Path

import pytest

from shadowcat.cli.workers import process


@pytest.fixture
def _fake_worker(monkeypatch):
    """Run tests/cli/workers/fake.py instead of the proxy."""
    fake = str(Path(__file__).with_name("fake.py"))
    monkeypatch.setattr(process, "worker_command", lambda arguments: [sys.executable, "-I", fake, *arguments])
