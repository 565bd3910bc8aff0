"""Sessions as text: every one comes back, and nonsense says so."""

import json
import math

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shadowcat.errors import StoreCorrupt
from shadowcat.protocol import ResponseMode
from shadowcat.session import Session, SessionId, TransportType, UpstreamSessionId, decode_session, encode_session
from shadowcat.session.codec import SCHEMA, with_activity
from shadowcat.session.model import SessionState

KNOWN = {field.name for field in attrs.fields(Session)} - {"unknown"}

texts = st.text(st.characters(exclude_categories=["Cs"]))
integers = st.integers(-(2**63), 2**64 - 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | integers | finite | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(texts, values, max_size=5)
sessions = st.builds(
    Session,
    id=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=256).map(SessionId),
    upstream_session_id=st.none() | texts.map(UpstreamSessionId),
    transport_type=st.sampled_from(TransportType),
    response_mode=st.none() | st.sampled_from(ResponseMode),
    protocol_version=texts,
    initialize_params=objects,
    initialize_result=objects,
    state=st.sampled_from(SessionState),
    upstream_name=texts,
    principal=st.none() | texts,
    created_at=finite,
    last_activity=finite,
    expires_at=finite | st.just(math.inf),
    metadata=st.dictionaries(texts, texts, max_size=5),
    revision=st.integers(0, 2**63 - 1),
    unknown=st.dictionaries(texts.filter(lambda name: name not in KNOWN | {"v"}), values, max_size=5),
)


@given(sessions)
def test_every_session_comes_back(session):
    """R07: every field of every session, those of a newer version too."""
    assert session == decode_session(encode_session(session))


def test_every_field_is_covered():
    """A field that is added to `Session` is written and read as well."""
    session = Session(id=SessionId("a"))
    assert KNOWN | {"v"} == set(json.loads(encode_session(session)))


@given(objects)
def test_unknown_fields_are_kept(fields):
    """A proxy of an older version passes on what a newer one wrote, and its schema is no obstacle."""
    assume(not fields.keys() & (KNOWN | {"v"}))
    text = json.dumps({"v": 99, "id": "a", **fields}).encode()
    session = decode_session(text)
    assert fields == session.unknown
    again = decode_session(encode_session(attrs.evolve(session, principal="somebody")))
    assert (fields, "somebody") == (again.unknown, again.principal)


def test_fields_that_an_older_version_did_not_write_have_their_defaults():
    assert Session(id=SessionId("a")) == decode_session(b'{"v": 1, "id": "a"}')


def test_the_schema_is_written():
    assert SCHEMA == json.loads(encode_session(Session(id=SessionId("a"))))["v"]


def test_large_numbers_stay_exact():
    """C# and Java servers use 64-bit ids; 2**53 + 1 is no float."""
    session = Session(id=SessionId("a"), initialize_params={"n": 2**53 + 1})
    assert 2**53 + 1 == decode_session(encode_session(session)).initialize_params["n"]


NONSENSE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\xff\xfe", id="not UTF-8"),
    pytest.param(b"[]", id="no object"),
    pytest.param(b"null", id="null"),
    pytest.param(b'{"v": 1}', id="no id"),
    pytest.param(b'{"id": "a"', id="cut"),
    pytest.param(b'{"id": "a", "transport_type": "pigeon"}', id="no such transport"),
    pytest.param(b'{"id": "a", "transport_type": []}', id="a list for a transport"),
    pytest.param(b'{"id": "a", "created_at": null}', id="no time"),
    pytest.param(b'{"id": "a", "created_at": "noon"}', id="a word for a time"),
    pytest.param(b'{"id": "a", "revision": {}}', id="an object for a number"),
    pytest.param(b'{"id": "a", "metadata": 5}', id="a number for an object"),
    pytest.param(b'{"id": "a", "initialize_params": [1]}', id="a list for an object"),
    pytest.param(b'{"id": "a", "unknown": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", id="too deep"),
]


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_corrupt(text):
    with pytest.raises(StoreCorrupt, match="cannot be read"):
        decode_session(text)


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_else(text):
    try:
        decode_session(text)
    except StoreCorrupt:
        pass


@given(st.dictionaries(st.sampled_from(sorted(KNOWN)), values))
def test_fields_of_the_wrong_kind_raise_nothing_else(fields):
    text = json.dumps({"id": "a", **fields}).encode()
    try:
        decode_session(text)
    except StoreCorrupt:
        pass


@given(sessions, st.data())
def test_cut_text_is_corrupt(session, data):
    """What a crash left half written is never taken for a session."""
    text = encode_session(session)
    with pytest.raises(StoreCorrupt):
        decode_session(text[: data.draw(st.integers(0, len(text) - 1))])


def test_activity_is_kept_beside():
    session = Session(id=SessionId("a"), last_activity=1.0, expires_at=2.0)
    assert session is with_activity(session, 1.0, 2.0)
    assert attrs.evolve(session, last_activity=3.0, expires_at=4.0) == with_activity(session, 3.0, 4.0)
