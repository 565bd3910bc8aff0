"""Lines that get to the disk, and nobody who waits for it longer than said."""

import errno
import json
import os
import threading
import time
from functools import partial

import pytest
import trio

from shadowcat.errors import ConfigError
from shadowcat.telemetry import json_lines
from shadowcat.telemetry.config import LogFileConfig
from shadowcat.telemetry.json_lines import JsonLines, open_json_lines
from tests.waiting import wait_until


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


async def wait_written(lines, count):
    await wait_until(lambda: lines.written >= count)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(json_lines, "_LINGER", 0.0)
    monkeypatch.setattr(json_lines, "_RETRY_INTERVAL", 0.001)


async def test_what_is_put_is_appended_in_order(tmp_path):
    path = tmp_path / "a.log"
    path.write_text('{"n":-1}\n')
    async with open_json_lines(LogFileConfig(path=str(path)), lambda n: {"n": n}, is_kept=False) as lines:
        assert all(lines.put(n) for n in range(2500))
    assert lines_of(path) == [{"n": n} for n in range(-1, 2500)]
    assert (lines.written, lines.dropped, lines.queued) == (2500, 0, 0)


async def test_what_waits_is_written_when_it_is_cancelled(tmp_path):
    path = tmp_path / "a.log"
    with trio.CancelScope() as scope:
        async with open_json_lines(LogFileConfig(path=str(path)), dict, is_kept=False) as lines:
            lines.put({"n": 1})
            scope.cancel()
            await trio.sleep_forever()
    assert lines_of(path) == [{"n": 1}]


async def test_what_is_put_while_it_is_cancelled_is_written_too(tmp_path):
    """Calls that are cut off have their lines, and the proxy that stops has its own."""
    path = tmp_path / "a.log"
    with trio.CancelScope() as scope:
        async with open_json_lines(LogFileConfig(path=str(path)), dict, is_kept=False) as lines:
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()
                assert lines.put({"n": 1})
    assert lines_of(path) == [{"n": 1}]


async def test_file_for_others_is_no_file_for_everybody(tmp_path):
    path = tmp_path / "a.log"
    async with open_json_lines(LogFileConfig(path=str(path)), dict, is_kept=False):
        assert path.stat().st_mode & 0o007 == 0


async def test_file_that_cannot_be_opened_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="choose another file"):
        async with open_json_lines(LogFileConfig(path=str(tmp_path / "no" / "a")), dict, is_kept=False):
            pass


async def test_standard_error_is_written_to_and_stays_open(capfd):
    async with open_json_lines(LogFileConfig(path="-"), dict, is_kept=False) as lines:
        lines.put({"n": 1})
    assert capfd.readouterr().err == '{"n":1}\n'
    os.fstat(2)


async def test_file_that_was_moved_away_is_opened_anew(tmp_path):
    """As logrotate does; and with ``copytruncate`` the beginning is the beginning again."""
    path = tmp_path / "a.log"
    async with open_json_lines(LogFileConfig(path=str(path)), dict, is_kept=False) as lines:
        lines.put({"n": 1})
        await wait_written(lines, 1)
        path.rename(tmp_path / "a.log.1")
        lines.put({"n": 2})
        await wait_written(lines, 2)
        assert lines_of(path) == [{"n": 2}]
        os.truncate(path, 0)
        lines.put({"n": 3})
    assert lines_of(path) == [{"n": 3}]
    assert lines_of(tmp_path / "a.log.1") == [{"n": 1}]


async def test_putting_never_waits_and_counts_what_is_left_out(tmp_path):
    """Nobody writes: two lines find room, the third is one too many."""
    lines = JsonLines(LogFileConfig(path=str(tmp_path / "a"), max_queued=2), dict, is_kept=False)
    assert [lines.put({}) for _ in range(3)] == [True, True, False]
    assert (lines.queued, lines.dropped) == (2, 1)


async def test_patience_has_an_end(autojump_clock, tmp_path, caplog):
    lines = JsonLines(LogFileConfig(path=str(tmp_path / "a"), max_queued=1), dict, is_kept=True)
    assert await lines.put_patiently({}, 1.5)
    assert trio.current_time() == 0.0
    assert not await lines.put_patiently({}, 1.5)
    assert trio.current_time() == 1.5
    assert lines.dropped == 1
    assert "left out" in caplog.text


async def test_patience_is_rewarded_when_there_is_room_again(tmp_path):
    lines = JsonLines(LogFileConfig(path=str(tmp_path / "a"), max_queued=1), dict, is_kept=True)
    lines.put({"n": 1})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lines.put_patiently, {"n": 2}, 60)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(lines.run)
        await wait_written(lines, 2)
        nursery.cancel_scope.cancel()
    assert lines_of(tmp_path / "a") == [{"n": 1}, {"n": 2}]


async def test_after_the_end_lines_are_counted_as_left_out(tmp_path):
    async with open_json_lines(LogFileConfig(path=str(tmp_path / "a")), dict, is_kept=False) as lines:
        pass
    assert not lines.put({})
    assert not await lines.put_patiently({}, 1)
    assert lines.dropped == 2


class FullDisk:
    """Fails as often as it is told to, and then writes."""

    def __init__(self, monkeypatch, failures):
        self._write, self.left = os.write, failures
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file, data):
        if self.left and data.startswith(b"{"):
            self.left -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(file, data)


async def test_full_disk_costs_lines_that_may_be_lost(tmp_path, monkeypatch, caplog):
    FullDisk(monkeypatch, 2)
    async with open_json_lines(LogFileConfig(path=str(tmp_path / "a")), dict, is_kept=False) as lines:
        for n in range(3):
            lines.put({"n": n})
            await wait_until(partial(lambda n: lines.written + lines.dropped > n, n))
    assert lines_of(tmp_path / "a") == [{"n": 2}]
    assert (lines.written, lines.dropped) == (1, 2)
    assert caplog.text.count("No space left") == 1


async def test_full_disk_costs_no_line_that_is_kept(tmp_path, monkeypatch):
    FullDisk(monkeypatch, 3)
    async with open_json_lines(LogFileConfig(path=str(tmp_path / "a")), dict, is_kept=True) as lines:
        lines.put({"n": 1})
        await wait_written(lines, 1)
    assert lines_of(tmp_path / "a") == [{"n": 1}]
    assert lines.dropped == 0


@pytest.mark.slow
async def test_disk_that_hangs_does_not_keep_the_proxy_from_ending(tmp_path, monkeypatch):
    hang = threading.Event()
    write = os.write

    def write_late(file, data):
        hang.wait(10)
        return write(file, data)

    monkeypatch.setattr(os, "write", write_late)
    config = LogFileConfig(path=str(tmp_path / "a"), flush_timeout=0.1)
    try:
        with trio.fail_after(2):
            async with open_json_lines(config, dict, is_kept=False) as lines:
                lines.put({"n": 1})
                await trio.sleep(0.01)
                lines.put({"n": 2})
        assert lines.dropped == 2
    finally:
        hang.set()


@pytest.mark.slow
async def test_slow_disk_does_not_keep_the_proxy_from_ending(tmp_path, monkeypatch):
    """Not even if each write takes less than all of them may."""
    monkeypatch.setattr(json_lines, "_BATCH", 1)

    def render(line):
        time.sleep(0.15)
        return line

    config = LogFileConfig(path=str(tmp_path / "a"), flush_timeout=0.2)
    with trio.fail_after(2):
        async with open_json_lines(config, render, is_kept=False) as lines:
            for n in range(100):
                lines.put({"n": n})
    assert lines.written + lines.dropped == 100
