"""The reference has every setting, and is what the table says."""

from pathlib import Path

from shadowcat.config import SETTINGS, write_reference

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def test_page_is_written_by_the_table():
    """Else run scripts/reference.py."""
    assert PAGE.read_text(encoding="utf-8").endswith(f"\n\n{write_reference(SETTINGS).rstrip()}\n")


def test_row_has_all_there_is_to_know():
    rows = write_reference(SETTINGS).splitlines()
    assert (
        "| `max_sessions` | sessions open at once; whole number, at least 1 | `10000` | `--max-sessions` "
        "| `SHADOWCAT_MAX_SESSIONS` |"
    ) in rows
    assert "## [limits]" in rows
    assert len([row for row in rows if row.startswith("| ") and "| key |" not in row]) == len(
        [setting for setting in SETTINGS if not setting.key.startswith("servers.*.")]
    )


def test_row_of_a_choice_tells_that_a_reload_changes_it():
    (row,) = [row for row in write_reference(SETTINGS).splitlines() if row.startswith("| `level` |")]
    assert "`error`, changed by a reload |" in row
