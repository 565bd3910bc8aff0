"""Shells complete the command line by what the parser accepts."""

import argparse
import os
import pty
import select
import shlex
import shutil
import subprocess
import time

import pytest

from shadowcat.cli import main
from shadowcat.cli.completions import PROGRAM, SHELLS, read_command, write_script
from shadowcat.cli.main import build_parser

SHADOWCAT = build_parser()


def nested():
    """A parser with commands below commands, as an administrator's may be, and with all that needs quoting."""
    root = argparse.ArgumentParser(prog="shadowcat", description="")
    commands = root.add_subparsers(metavar="COMMAND")
    check = commands.add_parser("check", help="see whether a file's right: [yes] or no")
    check.add_argument("file", metavar="FILE", help="what to check")
    check.add_argument("--secret", help=argparse.SUPPRESS)
    below = commands.add_parser("sessions", help="look after sessions").add_subparsers(metavar="COMMAND")
    below.add_parser("list", help="list them").add_argument("--sort", choices=["age", "idle"], help="by 'which'")
    below.add_parser("end", help="end one").add_argument("id", help="which; see `list` and $HOME")
    return root


PARSERS = {"shadowcat": SHADOWCAT, "nested": nested()}


def need(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")


def complete_in_bash(script, line, cwd=None):
    """Return what bash offers at the end of *line*."""
    words = line.split(" ")
    # As bash splits it, with the characters of COMP_WORDBREAKS.
    words = [
        part for word in words for part in (word.partition("=") if word.startswith("--") and "=" in word else [word])
    ]
    probe = f"""
COMP_WORDS=({shlex.join(words)})
COMP_CWORD={len(words) - 1}
_shadowcat shadowcat
for found in "${{COMPREPLY[@]}}"; do printf '%s\\n' "$found"; done
"""
    said = subprocess.run(
        ["bash", "--norc", "-c", script + probe], capture_output=True, text=True, check=True, timeout=30, cwd=cwd
    )
    assert said.stderr == ""
    return said.stdout.split("\n")[:-1]


def complete_in_fish(script, line, cwd=None):
    said = subprocess.run(
        ["fish", "--no-config", "-c", f"{script}\ncomplete -C {shlex.quote(line)}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        cwd=cwd,
    )
    assert said.stderr == ""
    return [found.partition("\t")[0] for found in said.stdout.splitlines()]


def complete_in_zsh(script, line, cwd):
    """Return the words of *line* once its last one was completed: what there is only one of."""
    (cwd / "_script").write_text(script)
    start = "PROMPT= RPROMPT=; autoload -U compinit; compinit -D -u; source ./_script; print -r -- R''EADY\n"
    shadowcat = "shadowcat() { print -r -- D''ONE \"${(@q)@}\" E''ND; }\n"
    terminal, other = pty.openpty()
    env = {**os.environ, "TERM": "dumb", "HOME": str(cwd)}
    zsh = subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=other, stdout=other, stderr=other, cwd=cwd, env=env, start_new_session=True
    )
    os.close(other)
    try:
        os.write(terminal, (shadowcat + start).encode())
        read_until(terminal, b"READY")
        os.write(terminal, f"{line}\t\n".encode())
        found = read_until(terminal, b"END").rpartition(b"DONE ")[2].partition(b" END")[0]
        return shlex.split(found.decode())
    finally:
        zsh.kill()
        zsh.wait(10)
        os.close(terminal)


def read_until(terminal, text):
    said, deadline = b"", time.monotonic() + 20
    while text not in said:
        assert select.select([terminal], [], [], max(deadline - time.monotonic(), 0))[0], said
        said += os.read(terminal, 65536)
    return said


def test_every_command_and_option_is_read():
    """As many as argparse has, and no more."""
    tree = read_command(SHADOWCAT, "shadowcat", "")
    reverse = next(command for command in tree.walk() if command.path == "shadowcat reverse")
    store = next(option for option in reverse.options if "--store" in option.names)

    assert {"reverse", "forward", "completions"} <= {command.name for command in tree.commands}
    assert store.argument is not None
    assert ["memory", "sqlite", "redis"] == store.argument.words
    assert "where sessions are kept; default: memory" == store.text
    assert [PROGRAM] == [argument.kind for argument in reverse.arguments]
    assert {name for option in reverse.options for name in option.names} == {
        name
        for action in SHADOWCAT._subparsers._group_actions[0].choices["reverse"]._actions  # type: ignore[union-attr, index]
        for name in action.option_strings
    }


@pytest.mark.parametrize("shell", SHELLS)
def test_command_prints_the_script(shell, capsys):
    """Nothing else, so that a shell can read it."""
    assert 0 == main(["completions", shell])
    assert capsys.readouterr() == (write_script(shell, build_parser()), "")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("parser", PARSERS)
def test_script_has_no_errors_of_syntax(shell, parser, tmp_path):
    need(shell)
    path = tmp_path / "script"
    path.write_text(write_script(shell, PARSERS[parser]))
    assert "" == subprocess.check_output([shell, "-n", path], text=True, stderr=subprocess.STDOUT, timeout=30)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_help_does_not_show_is_not_completed(shell):
    assert "secret" not in write_script(shell, PARSERS["nested"])


OFFERS = [
    ("shadowcat", "shadowcat re", {"reverse"}),
    ("shadowcat", "shadowcat completions ", {"bash", "zsh", "fish"}),
    ("shadowcat", "shadowcat reverse --sto", {"--store", "--store-fallback"}),
    ("shadowcat", "shadowcat reverse --store ", {"memory", "sqlite", "redis"}),
    ("shadowcat", "shadowcat reverse --upstream http://127.0.0.1:9/mcp --log-level w", {"warning"}),
    ("shadowcat", "shadowcat reverse --bind forward --work", {"--workers"}),
    ("shadowcat", "shadowcat reverse --sqlite-path ses", {"sessions.db"}),
    ("shadowcat", "shadowcat reverse -- some_prog", {"some_program"}),
    ("shadowcat", "shadowcat reverse -- some_program --ba", set()),
    ("nested", "shadowcat ", {"check", "sessions"}),
    ("nested", "shadowcat check ses", {"sessions.db"}),
    ("nested", "shadowcat sessions ", {"list", "end"}),
    ("nested", "shadowcat sessions list --sort ", {"age", "idle"}),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "sessions.db").touch()
    program = tmp_path / "bin" / "some_program"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(("shell", "complete"), [("bash", complete_in_bash), ("fish", complete_in_fish)])
@pytest.mark.parametrize(("parser", "line", "offered"), OFFERS)
def test_shell_offers(shell, complete, parser, line, offered, folder):
    need(shell)
    found = complete(write_script(shell, PARSERS[parser]), line, cwd=folder)
    assert offered == {name for name in found if not (line.endswith(" ") and name.startswith("-"))}


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sq", "sqlite"])
def test_bash_completes_behind_an_equals_sign(store):
    need("bash")
    assert ["sqlite"] == complete_in_bash(write_script("bash", SHADOWCAT), f"shadowcat reverse --store={store}")
    assert [] == complete_in_bash(write_script("bash", SHADOWCAT), "shadowcat reverse --bind=")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parser", "line", "words"),
    [
        ("shadowcat", "shadowcat rev", ["reverse"]),
        ("shadowcat", "shadowcat completions z", ["completions", "zsh"]),
        ("shadowcat", "shadowcat reverse --store sq", ["reverse", "--store", "sqlite"]),
        ("shadowcat", "shadowcat reverse --store=sq", ["reverse", "--store=sqlite"]),
        ("shadowcat", "shadowcat reverse --bind x --work", ["reverse", "--bind", "x", "--workers"]),
        ("shadowcat", "shadowcat forward --env A=1 --env-p", ["forward", "--env", "A=1", "--env-pass"]),
        ("shadowcat", "shadowcat reverse --sqlite-path ses", ["reverse", "--sqlite-path", "sessions.db"]),
        ("shadowcat", "shadowcat reverse -- some_prog", ["reverse", "--", "some_program"]),
        ("nested", "shadowcat check ses", ["check", "sessions.db"]),
        ("nested", "shadowcat sessions li", ["sessions", "list"]),
        ("nested", "shadowcat sessions list --sort i", ["sessions", "list", "--sort", "idle"]),
    ],
)
def test_zsh_completes(parser, line, words, folder):
    need("zsh")
    assert words == [word.rstrip("=") for word in complete_in_zsh(write_script("zsh", PARSERS[parser]), line, folder)]
