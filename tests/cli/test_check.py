"""``shadowcat check``: right is a line and 0, wrong is a line each and 1, and nothing is opened."""

import pytest

from shadowcat.cli import main
from tests.test_docs import DOCS

EXAMPLE = str(DOCS / "examples" / "shadowcat.toml")


@pytest.fixture(autouse=True)
def _token(monkeypatch):
    monkeypatch.setenv("UPSTREAM_TOKEN", "t")


def test_right_file_is_a_line_and_0(capsys):
    assert main(["check", EXAMPLE]) == 0
    expected = (
        f"{EXAMPLE}: nothing is wrong; would serve http://127.0.0.1:9000/mcp at 127.0.0.1:8080/mcp "
        "by 1 process, sessions in sqlite\n"
    )
    assert capsys.readouterr() == (expected, "")


def test_wrong_file_is_a_line_for_each_problem_and_1(tmp_path, capsys):
    path = tmp_path / "f.toml"
    path.write_text("[listener]\nbind = 1\n[limits]\nmax_sesions = 1\n")
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr() == (
        "",
        f"shadowcat: {path}:2: listener.bind must be a string, not a number\n"
        f"shadowcat: {path}:4: limits.max_sesions is not known; did you mean limits.max_sessions?\n",
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--upstream", "http://h/"],
        ["--config", EXAMPLE, "--bind", "127.0.0.1:0"],
        [EXAMPLE, "--bind", "127.0.0.1:0"],
        ["--cwd", "/", "--", "true", "--bind"],
    ],
)
def test_options_are_checked_too(arguments, capsys):
    assert main(["check", *arguments]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


def test_file_may_be_named_by_the_environment(monkeypatch, capsys):
    monkeypatch.setenv("SHADOWCAT_CONFIG", EXAMPLE)
    assert main(["check"]) == 0
    assert capsys.readouterr().out.startswith(EXAMPLE)


def test_several_files_are_refused(capsys):
    assert main(["check", EXAMPLE, EXAMPLE]) == 1
    assert "are several files" in capsys.readouterr().err


def test_what_is_named_must_be_there(capsys):
    assert main(["check", "--", "shadowcat-no-such-program"]) == 1
    assert capsys.readouterr().err.startswith("shadowcat: the command after --: ")
