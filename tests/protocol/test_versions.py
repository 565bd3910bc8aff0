"""Revisions and their eras."""

import pytest

from shadowcat.protocol import BATCH_VERSION, LEGACY_VERSIONS, MODERN_VERSIONS, Era, era_of


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
def test_revisions_with_initialize_are_legacy(version):
    """MCP versioning: these open a session with an initialize handshake."""
    assert Era.LEGACY is era_of(version)
    assert version in LEGACY_VERSIONS


@pytest.mark.parametrize("version", ["2026-07-28", "2026-07-29", "2026-12-01", "2027-01-01", "2100-01-01"])
def test_the_first_modern_revision_and_later_dates_are_modern(version):
    """MCP versioning: a server that does not know the version answers so itself."""
    assert Era.MODERN is era_of(version)


@pytest.mark.parametrize(
    "version",
    ["", "2026-07-27", "2025-11-26", "1999-01-01", "x", "9999", "2026-07-28 ", "2026-07-28-rc", "2026-7-28"]
    + ["2026-07-28\n", "٢٠٢٦-٠٧-٢٨", "DRAFT-2026-v1", "2026/07/28", "12026-07-28"],
)
def test_anything_else_is_no_revision(version):
    """MCP versioning: revisions are named YYYY-MM-DD."""
    assert era_of(version) is None


def test_revisions_are_listed_oldest_first():
    """The order decides which is the newest."""
    assert sorted([*LEGACY_VERSIONS, *MODERN_VERSIONS]) == [*LEGACY_VERSIONS, *MODERN_VERSIONS]


def test_one_revision_has_batches():
    """MCP 2025-03-26 added JSON-RPC batching, 2025-06-18 removed it."""
    assert BATCH_VERSION == "2025-03-26"
