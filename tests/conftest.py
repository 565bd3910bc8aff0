"""What one test changes of the process does not last."""

import gc
import logging

import pytest


@pytest.fixture(autouse=True)
def restored_process():
    """A command that is run in the test's own process sets up the log, and freezes the heap."""
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    root.handlers[:] = [handler for handler in root.handlers if type(handler) is not logging.StreamHandler]
    gc.unfreeze()
