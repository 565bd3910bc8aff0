"""Message streams to child processes."""

import errno
import json
import os
import signal
import sys
import uuid

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from shadowcat.errors import ConfigError, MessageTooLong, StreamBroken, UpstreamUnavailable
from shadowcat.transport.upstream import StdioConfig, StdioConnector

from .children import command
from .processes import is_running, marked, open_files, unreaped, wait_gone


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No child outlives its test, as a zombie neither."""
    before = unreaped()
    yield
    assert before == unreaped()


@pytest.fixture
def marker():
    """A word for command lines by which descendants are found, and which none may outlive."""
    word = uuid.uuid4().hex
    yield word
    left = marked(word)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert [] == left


def connect(name, *arguments, stop_timeout=0.1, **settings):
    config = StdioConfig(command=command(name, *arguments), stop_timeout=stop_timeout, **settings)
    return StdioConnector(config).open(())


async def receive_to_end(stream):
    """Return all messages until the stream breaks, and why it did."""
    messages = []
    with trio.fail_after(10):
        while True:
            try:
                messages.append(await stream.receive())
            except StreamBroken as error:
                return messages, str(error)


class TestConfig:
    @pytest.mark.parametrize(
        ("settings", "text"),
        [
            ({"command": "run me"}, "as a list of words"),
            ({"command": ()}, "name the program"),
            ({"command": ("",)}, "name the program"),
            ({"command": ("a\0b",)}, "correct the command"),
            ({"command": ("\ud800",)}, "correct the command"),
            ({"command": ("a",), "env": {"": "1"}}, "no name of a variable"),
            ({"command": ("a",), "env": {"A=B": "1"}}, "no name of a variable"),
            ({"command": ("a",), "env": {"A": "a secret\0"}}, "the value of the variable A:"),
            ({"command": ("a",), "inherit": "HOME"}, "as a list of words"),
            ({"command": ("a",), "cwd": "x\0"}, "correct the working directory"),
        ],
    )
    def test_what_cannot_be_run_is_refused(self, settings, text):
        with pytest.raises(ConfigError, match=text) as caught:
            StdioConfig(**settings)
        assert "a secret" not in str(caught.value)

    @pytest.mark.parametrize("limit", [{"max_message_size": 0}, {"write_timeout": 0}, {"stop_timeout": -1}])
    def test_limits_are_positive(self, limit):
        with pytest.raises(ValueError, match="must be > 0"):
            StdioConfig(command=("a",), **limit)

    def test_values_of_variables_are_not_shown(self):
        assert "hidden" not in repr(StdioConfig(command=("a",), env={"TOKEN": "hidden"}))


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def ours(self, monkeypatch):
        for name in list(os.environ):
            monkeypatch.delenv(name)
        monkeypatch.setenv("PATH", os.defpath)
        monkeypatch.setenv("LC_TIME", "C.UTF-8")
        monkeypatch.setenv("SECRET", "s")
        monkeypatch.setenv("WANTED", "w")
        monkeypatch.setenv("TERM", "() { :; }")

    def test_only_what_is_on_the_list_is_inherited(self):
        """And no function that a shell has exported."""
        assert {"PATH": os.defpath, "LC_TIME": "C.UTF-8"} == StdioConfig(command=("a",)).environment()

    def test_further_names_can_be_inherited(self):
        config = StdioConfig(command=("a",), inherit=["WANTED", "UNSET"], env={"PATH": "/p", "OWN": "o"})
        assert {"PATH": "/p", "LC_TIME": "C.UTF-8", "WANTED": "w", "OWN": "o"} == config.environment()

    async def test_the_child_has_it_and_nothing_else(self, tmp_path):
        """No variable, no descriptor; and a working directory, a session and a group of its own."""
        async with connect("tell_environment", env={"OWN": "\u00f6"}, cwd=tmp_path) as stream:
            told = json.loads(await stream.receive())
        told["env"].pop("LC_CTYPE", None)  # Python sets it, by PEP 538
        assert {"PATH": os.defpath, "LC_TIME": "C.UTF-8", "OWN": "\u00f6"} == told["env"]
        assert str(tmp_path) == told["cwd"]
        assert told["pid"] == told["group"] == told["session"]
        assert {"0", "1", "2"} == set(told["fds"]) - {"3"}  # 3 is what lists them


class TestCheck:
    def check(self, *words, **settings):
        StdioConnector(StdioConfig(command=words, **settings)).check()

    def test_a_program_that_is_there(self, tmp_path):
        """By its path, by a path from the working directory, or on the child's PATH."""
        program = tmp_path / "bin" / "program"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n", encoding="ascii")
        program.chmod(0o755)
        self.check("sh")
        self.check(sys.executable)
        self.check("bin/program", cwd=str(tmp_path))
        self.check("program", env={"PATH": str(program.parent)})

    def test_one_that_is_not(self, tmp_path):
        """The text names it, and what to do."""
        (tmp_path / "file").write_text("", encoding="ascii")
        with pytest.raises(ConfigError, match="install 'no-such-program'"):
            self.check("no-such-program")
        with pytest.raises(ConfigError, match="install 'sh'"):
            self.check("sh", env={"PATH": str(tmp_path)})
        with pytest.raises(ConfigError, match="there is no file '/no/such'"):
            self.check("/no/such")
        with pytest.raises(ConfigError, match="make the server's program executable"):
            self.check("./file", cwd=str(tmp_path))
        with pytest.raises(ConfigError, match="no file"):
            self.check(str(tmp_path))
        with pytest.raises(ConfigError, match="'/no/such' is none"):
            self.check("sh", cwd="/no/such")


class TestOpen:
    async def test_messages_go_both_ways(self):
        async with connect("echo") as stream:
            for message in (b"{}", b'"' + b"x" * 300_000 + b'"'):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.send, message)
                    assert message == await stream.receive()

    async def test_each_stream_has_a_child(self):
        connector = StdioConnector(StdioConfig(command=command("echo")))
        async with connector.open(()) as one, connector.open(()) as other:
            await one.send(b"1")
            await other.send(b"2")
            assert b"2" == await other.receive()
            assert b"1" == await one.receive()

    @pytest.mark.parametrize(
        ("settings", "number"),
        [
            ({"command": ["/no/such"]}, errno.ENOENT),
            ({"command": ["no-such-program"]}, errno.ENOENT),
            ({"command": [__file__]}, errno.EACCES),
            ({"command": ["sh"], "cwd": "/no/such"}, errno.ENOENT),
            ({"command": ["sh", "x" * 10_000_000]}, errno.E2BIG),
        ],
    )
    async def test_what_cannot_be_started_is_unavailable(self, settings, number):
        """The text says why, not what: it goes to the client."""
        before = open_files()
        with pytest.raises(UpstreamUnavailable) as caught:
            async with StdioConnector(StdioConfig(**settings)).open(()):
                pass
        assert os.strerror(number) in str(caught.value)
        assert settings["command"][0] not in str(caught.value)
        assert before == open_files()

    async def test_an_error_of_the_block_passes_as_it_is(self):
        """In no group, though there are tasks."""
        with pytest.raises(ValueError, match="mine"):
            async with connect("echo"):
                raise ValueError("mine")

    async def test_nor_is_it_lost_when_the_block_is_cancelled(self):
        async def fail():
            with trio.CancelScope() as scope:
                async with connect("ignore_sigterm"):
                    scope.cancel()
                    raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            await fail()

    async def test_an_idle_child_costs_two_tasks_and_five_descriptors(self):
        tasks, files = trio.lowlevel.current_statistics().tasks_living, len(open_files())
        async with connect("echo"):
            await wait_all_tasks_blocked()
            assert 2 == trio.lowlevel.current_statistics().tasks_living - tasks
            assert 5 == len(open_files()) - files

    async def test_not_all_children_start_at_once(self, monkeypatch):
        """Four do; the others wait, and can be cancelled."""
        starting = 0
        go_on = trio.Event()

        async def open_process(*args, **kwargs):
            nonlocal starting
            starting += 1
            await go_on.wait()
            raise OSError(errno.EAGAIN, "try again")

        monkeypatch.setattr(trio.lowlevel, "open_process", open_process)
        connector = StdioConnector(StdioConfig(command=["a"]))

        async def start():
            with pytest.raises(UpstreamUnavailable):
                async with connector.open(()):
                    pass

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(start)
            await wait_all_tasks_blocked()
            assert 4 == starting
            go_on.set()
        assert 10 == starting


class TestReceive:
    async def test_what_a_child_wrote_before_it_ended_arrives(self):
        """But for half a message; then the error says how it ended."""
        async with connect("die_in_a_message") as stream:
            messages, reason = await receive_to_end(stream)
            assert [b'{"whole":1}'] == messages
            assert "the server process exited with status 7" == reason
            assert ([], reason) == await receive_to_end(stream)

    async def test_a_crash_at_start_is_logged_with_the_last_line_of_standard_error(self, caplog):
        """Clients are not told; what could harm a terminal is escaped, and values of the environment are left out."""
        async with connect("crash", env={"KEY": "sk-0123456789"}) as stream:
            messages, reason = await receive_to_end(stream)
        assert [] == messages
        assert reason == "the server process exited with status 1"
        assert caplog.messages[-1].endswith(
            " exited with status 1; the last line of its standard error: "
            "RuntimeError: no configuration\\x1b[2J, key is ***"
        )

    async def test_death_by_a_signal(self):
        config = StdioConfig(command=["sh", "-c", "echo bye >&2; kill -9 $$"])
        async with StdioConnector(config).open(()) as stream:
            _, reason = await receive_to_end(stream)
        assert "the server process was killed by signal 9" == reason

    async def test_garbage_is_lines_like_any_other(self):
        async with connect("garbage") as stream:
            assert b"\x00\xff\xfe{]" == await stream.receive()
            assert b"not json" == await stream.receive()
            assert b"\xc3(" == await stream.receive()
            await stream.send(b"{}")
            assert b"{}" == await stream.receive()

    async def test_a_message_that_is_too_long_is_dropped_alone(self):
        async with connect("echo", max_message_size=10) as stream:
            await stream.send(b"x" * 11)
            await stream.send(b"short")
            with pytest.raises(MessageTooLong):
                await stream.receive()
            assert b"short" == await stream.receive()

    async def test_a_descendant_that_keeps_the_pipe_open_does_not_hide_the_end(self, marker):
        """One in the child's group is killed at once, before the block is left."""
        async with connect("have_child", marker) as stream:
            grandchild = int(await stream.receive())
            assert is_running(grandchild)
            await stream.send(b"end")
            assert ([], "the server process exited with status 5") == await receive_to_end(stream)
            await wait_gone(grandchild)

    async def test_nor_does_one_in_a_session_of_its_own(self, marker):
        """It lives on: nobody knows that it belongs to the child."""
        async with connect("have_child_that_leaves", marker) as stream:
            grandchild = int(await stream.receive())
            await stream.send(b"end")
            assert ([], "the server process exited with status 5") == await receive_to_end(stream)
        assert is_running(grandchild)
        os.kill(grandchild, signal.SIGKILL)
        await wait_gone(grandchild)

    async def test_nor_does_one_that_writes_for_ever(self):
        async with connect("have_child_that_floods") as stream:
            grandchild = int(await stream.receive())
            await stream.send(b"end")
            _, reason = await receive_to_end(stream)
            assert "the server process exited with status 5" == reason
        os.kill(grandchild, signal.SIGKILL)
        await wait_gone(grandchild)

    @pytest.mark.slow
    async def test_standard_error_beyond_a_pipe_blocks_nobody(self, caplog):
        """It is logged as it comes, up to a rate."""
        caplog.set_level("INFO")
        async with connect("flood_errors") as stream:
            await stream.send(b"{}")
            with trio.fail_after(10):
                assert b"{}" == await stream.receive()
        said = [record.getMessage() for record in caplog.records if record.name.endswith("child_log")]
        assert said[0].endswith(": " + "0" * 99)
        assert any(line.endswith("lines suppressed") for line in said)
        assert len(said) < 1500

    @pytest.mark.slow
    async def test_a_child_that_closes_its_output_is_stopped(self):
        async with connect("close_output") as stream:
            messages, reason = await receive_to_end(stream)
            assert ([], "the server process has closed its standard output") == (messages, reason)
            with pytest.raises(StreamBroken, match="has closed its standard output"):
                await stream.send(b"{}")

    async def test_receiving_is_a_checkpoint_and_loses_nothing(self):
        async with connect("echo") as stream:
            await stream.send(b"kept")
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.receive()
            assert scope.cancelled_caught
            with assert_checkpoints():
                assert b"kept" == await stream.receive()


class TestSend:
    async def test_to_a_child_that_is_gone(self):
        async with connect("die_in_a_message") as stream:
            await receive_to_end(stream)
            with pytest.raises(StreamBroken, match="exited with status 7"):
                await stream.send(b"{}")

    async def test_to_one_that_is_gone_while_a_descendant_keeps_the_pipe(self, marker):
        async with connect("have_child_that_leaves", marker) as stream:
            grandchild = int(await stream.receive())
            await stream.send(b"end")
            await receive_to_end(stream)
            with pytest.raises(StreamBroken, match="exited with status 5"):
                await stream.send(b"{}")
        os.kill(grandchild, signal.SIGKILL)
        await wait_gone(grandchild)

    async def test_a_sender_that_waits_learns_that_the_child_is_gone(self, marker):
        """Here the pipe is full, and somebody else holds its other end."""
        async with connect("have_child_that_leaves", marker) as stream:
            grandchild = int(await stream.receive())
            with trio.fail_after(5), pytest.raises(StreamBroken, match="exited with status 5"):
                await stream.send(b"x" * 1_000_000)
        os.kill(grandchild, signal.SIGKILL)
        await wait_gone(grandchild)

    @pytest.mark.slow
    async def test_a_child_that_does_not_read_is_stopped_after_a_while(self):
        """A sender waits; then it is told, and so is whoever receives."""
        async with connect("ignore_eof", write_timeout=0.05) as stream:
            assert b"ready" == await stream.receive()
            async with trio.open_nursery() as nursery:

                async def receive():
                    _, reason = await receive_to_end(stream)
                    assert "nothing was read at the other end for 0.05 s" in reason

                nursery.start_soon(receive)
                with pytest.raises(StreamBroken, match="does not take messages: nothing was read"):
                    await stream.send(b"x" * 1_000_000)

    @pytest.mark.slow
    async def test_a_child_that_closes_its_input_is_stopped(self):
        async with connect("close_input") as stream:
            assert b"ready" == await stream.receive()
            with pytest.raises(StreamBroken, match="does not take messages: nobody reads"):
                await stream.send(b"{}")
            _, reason = await receive_to_end(stream)
            assert "does not take messages" in reason

    async def test_after_a_cancelled_send_messages_are_whole(self):
        async with connect("echo") as stream:
            with trio.move_on_after(0.05) as scope:
                while True:  # until the child waits for us to read
                    await stream.send(b"a" * 1000)
            assert scope.cancelled_caught
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send, b"last")
                with trio.fail_after(5):
                    while (message := await stream.receive()) != b"last":
                        assert message == b"a" * 1000
