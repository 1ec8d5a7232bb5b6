"""Signed statements: every tampering is found."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop.core.errors import CorruptObject, InvalidInput
from everloop.core.ids import object_id
from everloop.core.signing import SigningKey, VerifyKey

KIND = "https://everloop.dev/test/v1"
KEY = SigningKey.generate()
SUBJECTS = {"model": object_id(b"m")}


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=4))
def test_what_was_signed_opens(predicate):
    envelope = KEY.sign(KIND, SUBJECTS, predicate)
    assert VerifyKey.from_pem(KEY.public.to_pem()).open(json.loads(json.dumps(envelope)), KIND) == predicate


@given(st.data())
def test_one_changed_bit_anywhere_is_found(data):
    envelope = KEY.sign(KIND, SUBJECTS, {"n": 1})
    part = data.draw(st.sampled_from(["payload", "sig"]))
    raw = bytearray(base64.b64decode(envelope["payload"] if part == "payload" else envelope["signatures"][0]["sig"]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    changed = base64.b64encode(raw).decode()
    if part == "payload":
        envelope["payload"] = changed
    else:
        envelope["signatures"][0]["sig"] = changed
    with pytest.raises(CorruptObject):
        KEY.public.open(envelope, KIND)


def test_another_key_type_or_shape_is_refused():
    envelope = KEY.sign(KIND, SUBJECTS, {})
    with pytest.raises(CorruptObject):
        SigningKey.generate().public.open(envelope, KIND)
    with pytest.raises(CorruptObject):
        KEY.public.open(envelope, "https://everloop.dev/other/v1")
    with pytest.raises(CorruptObject):
        KEY.public.open({**envelope, "payloadType": "text/plain"}, KIND)
    with pytest.raises(CorruptObject):
        KEY.public.open({**envelope, "signatures": []}, KIND)
    for broken in ({}, {"payload": 3}, {**envelope, "payload": "%%%"}, {**envelope, "signatures": [{}]}):
        with pytest.raises(CorruptObject):
            KEY.public.open(broken, KIND)


def test_keys_are_read_from_pem_only():
    again = SigningKey.from_pem(KEY.to_pem())
    assert again.public.key_id == KEY.public.key_id
    for read in (SigningKey.from_pem, VerifyKey.from_pem):
        with pytest.raises(InvalidInput):
            read(b"no key")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    other = X25519PrivateKey.generate()
    private = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = other.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for read, pem in ((SigningKey.from_pem, private), (VerifyKey.from_pem, public)):
        with pytest.raises(InvalidInput, match="Ed25519"):
            read(pem)


def test_the_envelope_is_dsse_over_an_in_toto_statement():
    statement = json.loads(base64.b64decode(KEY.sign(KIND, SUBJECTS, {"a": 1})["payload"]))
    assert statement == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model", "digest": {"blake3": object_id(b"m")[3:]}}],
        "predicateType": KIND,
        "predicate": {"a": 1},
    }
