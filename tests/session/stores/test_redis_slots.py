from __future__ import annotations

import pytest

from shadowcat.errors import StoreUnavailable
from shadowcat.session.stores.redis_slots import Address, SlotMap, address_in, read_slots, slot_of, stages_of, tag_of

ONE, TWO = Address("one", 1), Address("two", 2)


@pytest.mark.parametrize(
    ("tag", "slot"), [(b"123456789", 0x31C3), (b"foo", 12182), (b"bar", 5061), (b"hello", 866), (b"", 0)]
)
def test_slots_are_those_of_redis(tag, slot):
    """The first is the check value of the specification, the others are what CLUSTER KEYSLOT says."""
    assert slot == slot_of(tag)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"p:{s:a}:session", (b"s:a", False)),
        (b"p:{s:}}:session", (b"s:", False)),
        (b"p:{s:{x}}", (b"s:{x", False)),
        (b"foo{bar}{zap}", (b"bar", False)),
        (b"foo{}{bar}", (b"foo{}{bar}", True)),
        (b"foo{bar", (b"foo{bar", True)),
        (b"}{", (b"}{", True)),
        (b"p:index", (b"p:index", True)),
    ],
)
def test_what_stands_in_the_first_braces_decides(key, expected):
    assert expected == tag_of((b"HGET", key, b"{field}"))
    assert expected == tag_of((b"EVAL", "return {KEYS[1]}", 1, key, b"{argument}"))


def test_a_map_knows_who_has_what():
    slots = SlotMap([(0, 8191, ONE), (12000, 15000, TWO)])
    assert (ONE, TWO, None) == (slots.owner_of(b"hello"), slots.owner_of(b"foo"), slots.owner_of(b"a"))
    assert {ONE, TWO} == slots.owners()

    slots.move(b"foo", ONE)
    assert ONE == slots.owner_of(b"foo")


def test_the_answer_to_cluster_slots_is_read():
    """Replicas are left out; who names no host of its own is where it was asked."""
    node = [b"10.0.0.1", 7000, b"id", {}]
    replica = [b"10.0.0.2", 7001, b"id2", {}]
    for own in (None, b"", b"?"):
        slots = read_slots([[0, 8191, node, replica], [8192, 16383, [own, 7002, b"id3", {}]]], ONE)
        assert Address("10.0.0.1", 7000) == slots.owner_of(b"hello")
        assert Address("one", 7002) == slots.owner_of(b"foo")
        assert 2 == len(slots.owners())


@pytest.mark.parametrize(
    "answer",
    [[], None, b"OK", [[]], [[0, 16384, [b"h", 1]]], [[5, 4, [b"h", 1]]], [[0, 1, []]], [[0, 1, [b"\xff", 1]]]],
)
def test_an_answer_of_no_use_is_said(answer):
    """An error, and no crash: another node may know better."""
    with pytest.raises(StoreUnavailable, match="Redis cluster"):
        read_slots(answer, ONE)


def test_addresses_of_redirects():
    assert Address("one", 7) == address_in("", 7, ONE)
    assert Address("::1", 7) == address_in("::1", 7, ONE)


@pytest.mark.parametrize(
    ("are_shared", "stages"),
    [
        ([], []),
        ([True], [(0, 1)]),
        ([False, False, True], [(0, 2), (2, 3)]),
        ([True, False, True], [(0, 1), (1, 2), (2, 3)]),
        ([False, True, True, False, False], [(0, 1), (1, 3), (3, 5)]),
    ],
)
def test_stages_end_where_order_matters(are_shared, stages):
    assert stages == [(stage.start, stage.stop) for stage in stages_of(are_shared)]
