"""The command line as a whole: what it prints, and its exit status."""

import logging
import os
import signal

import pytest
import trio

import shadowcat
from shadowcat.cli import main, reverse
from shadowcat.errors import ConfigError, UpstreamUnavailable

COMMAND = ["reverse", "--upstream", "http://upstream.invalid/mcp"]


@pytest.fixture(autouse=True)
def _root_logger():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def _own_signals():
    """A signal that the program does not handle fails the test, not the whole run."""

    def fail(number, frame):
        raise AssertionError(f"signal {number} was not handled")

    before = {number: signal.signal(number, fail) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def run_as(monkeypatch):
    """Let the command do something else, and return the exit status of the program."""

    def run_as(command, *options):
        monkeypatch.setattr(reverse, "run", command)
        return main([*COMMAND, *options])

    return run_as


def exit_status(argv):
    with pytest.raises(SystemExit) as excinfo:
        main(argv)
    return excinfo.value.code


def test_version_is_that_of_the_distribution(capsys):
    """One line, on standard output."""
    assert exit_status(["--version"]) == 0
    assert capsys.readouterr().out == f"shadowcat {shadowcat.__version__}\n"


@pytest.mark.parametrize(("argv", "text"), [(["--help"], "reverse"), (["reverse", "--help"], "--upstream URL")])
def test_help_goes_to_standard_output(argv, text, capsys):
    """Asking for help is no mistake."""
    assert exit_status(argv) == 0
    captured = capsys.readouterr()

    assert text in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    "argv",
    [[], ["nonsense"], ["forward", "-x"], [*COMMAND, "--nonsense"], [*COMMAND, "--log-level", "loud"]]
    + [[*COMMAND, "--max-sessions", "many"], [*COMMAND, "--log-format", "xml"], ["--log-level", "info"]],
)
def test_wrong_usage_is_2_and_says_what_is_wrong(argv, capsys):
    """As every Unix program has it."""
    assert exit_status(argv) == 2
    captured = capsys.readouterr()

    assert captured.out == ""
    assert "usage: shadowcat" in captured.err
    assert ": error: " in captured.err.splitlines()[-1]


class TestEnd:
    def test_command_that_ends_is_0(self, run_as, capsys):
        """Nothing is printed that the command did not print."""

        async def command(args, shutdown):
            await trio.lowlevel.checkpoint()

        assert run_as(command) == 0
        assert capsys.readouterr() == ("", "")

    def test_error_of_ours_is_one_line_and_1(self, run_as, capsys):
        """Something the user can act on has no traceback."""

        async def command(args, shutdown):
            await trio.lowlevel.checkpoint()
            raise ConfigError("choose another port")

        assert run_as(command) == 1
        assert capsys.readouterr() == ("", "shadowcat: choose another port\n")

    def test_each_error_in_nested_groups_has_its_line(self, run_as, capsys):
        """Nurseries wrap; the user need not know."""

        async def command(args, shutdown):
            await trio.lowlevel.checkpoint()
            raise ExceptionGroup("outer", [ConfigError("a"), ExceptionGroup("inner", [UpstreamUnavailable("b")])])

        assert run_as(command) == 1
        assert capsys.readouterr().err == "shadowcat: a\nshadowcat: b\n"

    @pytest.mark.parametrize("others", [[], [ConfigError("mine")]])
    def test_anything_else_is_a_bug_and_keeps_its_traceback(self, run_as, capsys, others):
        """... also when an error of ours came with it."""

        async def command(args, shutdown):
            await trio.lowlevel.checkpoint()
            raise ExceptionGroup("", [*others, ZeroDivisionError("bug")])

        with pytest.raises(ExceptionGroup) as excinfo:
            run_as(command)
        assert excinfo.group_contains(ZeroDivisionError)
        assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("_own_signals")
class TestSignals:
    """A signal goes to this very process: the handlers are the program's own."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_first_asks_the_command_to_end(self, run_as, number):
        """What is under way may finish, and the program has done what it was told."""
        ended = []

        async def command(args, shutdown):
            os.kill(os.getpid(), number)
            await shutdown.wait()
            ended.append(True)

        assert run_as(command) == 0
        assert ended

    @pytest.mark.parametrize(
        ("first", "second"),
        [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)],
    )
    def test_second_ends_it_at_once(self, run_as, first, second):
        """128 + the number of the signal, as a shell reports it."""

        async def command(args, shutdown):
            os.kill(os.getpid(), first)
            await shutdown.wait()
            os.kill(os.getpid(), second)
            await trio.sleep_forever()

        assert run_as(command) == 128 + second

    def test_handlers_are_given_back(self, run_as):
        """Whoever calls `main` keeps its own."""
        before = signal.getsignal(signal.SIGTERM)

        async def command(args, shutdown):
            await trio.lowlevel.checkpoint()
            assert signal.getsignal(signal.SIGTERM) is not before

        run_as(command)
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("options", "level", "start"),
    [
        ([], logging.INFO, "{"),
        (["--log-level", "debug"], logging.DEBUG, "{"),
        (["--log-format", "human"], logging.INFO, ""),
    ],
)
def test_log_goes_to_standard_error_as_chosen(run_as, capsys, options, level, start):
    """Standard output is for what the command says."""

    async def command(args, shutdown):
        await trio.lowlevel.checkpoint()
        assert logging.getLogger().level == level
        logging.getLogger("x").info("hello")

    assert run_as(command, *options) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(start)
    assert "hello" in captured.err
