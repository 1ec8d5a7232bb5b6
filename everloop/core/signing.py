"""Signed statements: in-toto Statement v1 in a DSSE envelope, Ed25519, verifiable offline.

Sources: the DSSE protocol (secure-systems-lab/dsse, `PAE`) and in-toto attestation Statement v1.
"""

import base64
import binascii
import json
import os
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from everloop.core.errors import CorruptObject, InvalidInput
from everloop.core.ids import object_id, short

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_NONCE = 12


class SigningKey:
    """The workspace's private key; `init` makes it, and only server and worker hold it."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        """Wrap a private key."""
        self._private = private
        self.public = VerifyKey(private.public_key())

    @classmethod
    def generate(cls) -> "SigningKey":
        """Make a new random key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> "SigningKey":
        """Read an unencrypted PKCS#8 PEM; raises `InvalidInput`."""
        try:
            key = serialization.load_pem_private_key(pem, None)
        except ValueError as error:
            raise InvalidInput("the signing key is not a PEM private key") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidInput("the signing key is not an Ed25519 key")
        return cls(key)

    def to_pem(self) -> bytes:
        """The PKCS#8 PEM, unencrypted: keep the file's mode at 0600."""
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, predicate_type: str, subjects: Mapping[str, str], predicate: Mapping[str, Any]) -> dict[str, Any]:
        """Return the DSSE envelope of a statement about `subjects` {name: `b3:` id}."""
        statement = {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": n, "digest": {"blake3": i.removeprefix("b3:")}} for n, i in sorted(subjects.items())],
            "predicateType": predicate_type,
            "predicate": dict(predicate),
        }
        payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
        signature = self._private.sign(_pae(PAYLOAD_TYPE, payload))
        return {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": self.public.key_id, "sig": base64.b64encode(signature).decode()}],
        }

    def seal(self, purpose: str, place: str, text: str) -> str:
        """Encrypt a text that only this key opens again, for the same purpose and place (AES-256-GCM)."""
        nonce = os.urandom(_NONCE)
        return base64.b64encode(nonce + self._cipher(purpose).encrypt(nonce, text.encode(), place.encode())).decode()

    def unseal(self, purpose: str, place: str, sealed: str) -> str:
        """The text that `seal` was given; raises `CorruptObject` for another key, purpose or place."""
        try:
            raw = base64.b64decode(sealed, validate=True)
            return self._cipher(purpose).decrypt(raw[:_NONCE], raw[_NONCE:], place.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise CorruptObject("a sealed text does not open", hint="another key or place sealed it") from error

    def _cipher(self, purpose: str) -> AESGCM:
        """A cipher whose key is derived from this one for a purpose (HKDF, RFC 5869)."""
        derived = HKDF(hashes.SHA256(), 32, None, f"everloop {purpose}".encode())
        return AESGCM(derived.derive(self._private.private_bytes_raw()))


class VerifyKey:
    """The public half, which everybody may hold."""

    def __init__(self, public: Ed25519PublicKey) -> None:
        """Wrap a public key."""
        self._public = public
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.key_id = short(object_id(raw))

    @classmethod
    def from_pem(cls, pem: bytes) -> "VerifyKey":
        """Read a PEM public key; raises `InvalidInput`."""
        try:
            key = serialization.load_pem_public_key(pem)
        except ValueError as error:
            raise InvalidInput("the verify key is not a PEM public key") from error
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidInput("the verify key is not an Ed25519 key")
        return cls(key)

    def to_pem(self) -> bytes:
        """The SubjectPublicKeyInfo PEM."""
        return self._public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def open(self, envelope: Mapping[str, Any], predicate_type: str) -> dict[str, Any]:
        """Verify an envelope and return its predicate.

        Raises `CorruptObject` when no signature of this key holds, or the statement is of another type.
        """
        try:
            payload = base64.b64decode(envelope["payload"], validate=True)
            signatures = [base64.b64decode(s["sig"], validate=True) for s in envelope["signatures"]]
            message = _pae(envelope["payloadType"], payload)
        except (KeyError, TypeError, binascii.Error) as error:
            raise CorruptObject("this is not a DSSE envelope") from error
        if not any(self._holds(signature, message) for signature in signatures):
            raise CorruptObject(
                "the signature does not hold", hint="the content was changed, or another workspace signed it"
            )
        statement = json.loads(payload)
        if statement.get("_type") != STATEMENT_TYPE or statement.get("predicateType") != predicate_type:
            raise CorruptObject(f"the signed statement is not a {predicate_type}")
        predicate: dict[str, Any] = statement["predicate"]
        return predicate

    def _holds(self, signature: bytes, message: bytes) -> bool:
        try:
            self._public.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def _pae(payload_type: str, payload: bytes) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
