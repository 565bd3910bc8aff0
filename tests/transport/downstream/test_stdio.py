"""Standard streams as messages, on descriptors of the test's own."""

import contextlib
import os
import socket
import stat

import pytest
import trio

from shadowcat.errors import ConfigError, MessageTooLong, StreamBroken
from shadowcat.transport.downstream import open_stdio


@pytest.fixture
def open_fds():
    fds = []
    yield fds.append
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            pass


@pytest.fixture
def pipes(open_fds):
    """Our ends and the client's: stdin, stdout, what the client writes to, what it reads from."""
    stdin, to_stdin = os.pipe()
    from_stdout, stdout = os.pipe()
    for fd in (stdin, to_stdin, from_stdout, stdout):
        open_fds(fd)
    return stdin, stdout, to_stdin, from_stdout


async def test_messages_pass_both_ways(pipes):
    stdin, stdout, to_stdin, from_stdout = pipes
    with trio.fail_after(5):
        async with open_stdio(100, stdin=stdin, stdout=stdout) as stream:
            os.write(to_stdin, b'{"a":1}\n\n{"b"')
            assert b'{"a":1}' == await stream.receive()
            os.write(to_stdin, b":2}\n")
            assert b'{"b":2}' == await stream.receive()
            await stream.send(b'{"c":3}')
            assert b'{"c":3}\n' == os.read(from_stdout, 100)


async def test_too_long_a_message_is_dropped(pipes):
    stdin, stdout, to_stdin, _ = pipes
    async with open_stdio(5, stdin=stdin, stdout=stdout) as stream:
        os.write(to_stdin, b"x" * 50 + b"\nnext\n")
        with pytest.raises(MessageTooLong):
            await stream.receive()
        assert await stream.receive() == b"next"


async def test_end_of_input_and_a_client_that_is_gone_break_it(pipes):
    stdin, stdout, to_stdin, from_stdout = pipes
    async with open_stdio(100, stdin=stdin, stdout=stdout) as stream:
        os.close(to_stdin)
        with pytest.raises(StreamBroken):
            await stream.receive()
        os.close(from_stdout)
        with pytest.raises(StreamBroken):
            await stream.send(b"x")


async def test_what_is_printed_meanwhile_goes_to_standard_error(pipes, capfd):
    """A library that prints breaks nothing."""
    stdin, stdout, _, from_stdout = pipes
    async with open_stdio(100, stdin=stdin, stdout=stdout) as stream:
        os.write(stdout, b"debug!\n")
        await stream.send(b"x")
        assert os.read(from_stdout, 100) == b"x\n"
    os.write(stdout, b"again\n")
    assert os.read(from_stdout, 100) == b"again\n"
    assert capfd.readouterr() == ("", "debug!\n")


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_descriptors_are_afterwards_what_they_were(pipes, is_cancelled):
    """The shell that started us shares them, and cannot cope with others."""
    stdin, stdout, *_ = pipes
    before = len(os.listdir("/proc/self/fd"))
    inode = os.fstat(stdout).st_ino
    with trio.CancelScope() as scope:
        async with open_stdio(100, stdin=stdin, stdout=stdout):
            assert not os.get_blocking(stdin)
            if is_cancelled:
                scope.cancel()
                await trio.lowlevel.checkpoint()
    assert os.get_blocking(stdin)
    assert os.get_blocking(stdout)
    assert os.fstat(stdout).st_ino == inode
    assert len(os.listdir("/proc/self/fd")) == before


async def test_both_may_be_one_socket(open_fds):
    """As some programs that start servers have it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with open_stdio(100, stdin=ours.fileno(), stdout=ours.fileno()) as stream:
            theirs.sendall(b"hello\n")
            assert await stream.receive() == b"hello"
            await stream.send(b"x")
            assert theirs.recv(100) == b"x\n"
        assert os.get_blocking(ours.fileno())


@pytest.mark.parametrize("content", [b"", b"a\nb\n", b"x" * 200_000 + b"\nb\n"])
async def test_input_may_be_a_file(tmp_path, pipes, open_fds, content):
    """It is always readable, and no event loop says so."""
    (tmp_path / "in").write_bytes(content)
    fd = os.open(tmp_path / "in", os.O_RDONLY)
    open_fds(fd)
    assert stat.S_ISREG(os.fstat(fd).st_mode)
    got = []
    async with open_stdio(1_000_000, stdin=fd, stdout=pipes[1]) as stream:
        with contextlib.suppress(StreamBroken):
            while True:
                got.append(await stream.receive())
    assert b"".join(line + b"\n" for line in got) == content


async def test_both_may_be_nothing(open_fds):
    """/dev/null ends at once, and takes everything."""
    fd = os.open(os.devnull, os.O_RDWR)
    open_fds(fd)
    async with open_stdio(100, stdin=fd, stdout=fd) as stream:
        await stream.send(b"x" * 1_000_000)
        with pytest.raises(StreamBroken):
            await stream.receive()


async def test_output_may_be_a_file(tmp_path, pipes, open_fds):
    fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    open_fds(fd)
    async with open_stdio(100, stdin=pipes[0], stdout=fd) as stream:
        await stream.send(b"x" * 1_000_000)
    assert (tmp_path / "out").stat().st_size == 1_000_001


async def test_client_that_does_not_read_makes_the_sender_wait(pipes, autojump_clock):
    """Nothing is queued, and what was cut by a cancellation is whole in the end."""
    stdin, stdout, _, from_stdout = pipes
    async with open_stdio(100, stdin=stdin, stdout=stdout) as stream:
        with trio.move_on_after(10) as scope:
            await stream.send(b"x" * 200_000)
        assert scope.cancelled_caught
        got = []

        async def read():
            while b"".join(got).count(b"\n") < 2:
                got.append(await trio.to_thread.run_sync(os.read, from_stdout, 65536))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await stream.send(b"next")
        assert b"".join(got) == b"x" * 200_000 + b"\nnext\n"


@pytest.mark.parametrize("closed", ["stdin", "stdout"])
async def test_closed_descriptor_is_said_to_be(pipes, closed):
    """Before anything else happens."""
    fds = dict(zip(("stdin", "stdout"), pipes, strict=False))
    os.close(fds[closed])
    with pytest.raises(ConfigError, match="closed"):
        async with open_stdio(100, **fds):
            pass
