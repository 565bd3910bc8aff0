"""``shadowcat config``: the schema of the file, and the settings in force."""

import json
import tomllib

from shadowcat.cli import main
from shadowcat.config import SETTINGS, build_schema


def test_schema_is_printed(capsys):
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == build_schema(SETTINGS)


def test_settings_in_force_are_printed_as_a_file(capsys, tmp_path):
    """... which says the same."""
    assert main(["config", "show", "--upstream", "http://h/", "--linger", "7"]) == 0
    shown = capsys.readouterr().out
    assert "linger = 7.0  # --linger\n" in shown
    path = tmp_path / "f.toml"
    path.write_text(shown)
    assert main(["config", "show", str(path)]) == 0
    assert tomllib.loads(capsys.readouterr().out) == tomllib.loads(shown)


def test_wrong_settings_are_told_instead(capsys):
    assert main(["config", "show", "--bind", "x", "--upstream", "http://h/"]) == 1
    assert capsys.readouterr().err.startswith("shadowcat: --bind: 'x' is not an address")
