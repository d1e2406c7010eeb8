"""Owns sealing credentials (AES-256-GCM) under the server's secret; stores nothing and makes no randomness."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping as Map

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from roster.base.errors import Code, Error
from roster.store.connections import write_json

FORM = "v1:"
"""What a sealed text starts with: AES-256-GCM, a nonce of 12 bytes before the sealed bytes, in base64."""
LABEL = b"roster secrets v1"
"""Sets the key apart from whatever else is made from the server's secret."""
KEY_BYTES = 32
NONCE_BYTES = 12


class AesVault:
    """Seals the members of a secret for its name: what was sealed for one name opens for no other."""

    def __init__(self, server_secret: bytes, nonce: Callable[[], bytes]) -> None:
        """`nonce` gives 12 fresh random bytes; a nonce used twice would give the members away."""
        key = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=LABEL).derive(server_secret)
        self._cipher = AESGCM(key)
        self._nonce = nonce

    def seal(self, name: str, members: Map[str, str]) -> str:
        """The members as text that only this server's secret opens."""
        nonce = self._nonce()
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
        sealed = self._cipher.encrypt(nonce, write_json(dict(members)).encode(), name.encode())
        return FORM + base64.b64encode(nonce + sealed).decode()

    def open(self, name: str, sealed: str) -> dict[str, str]:
        """The members. Error: INTERNAL when the text was sealed for another name, with another key, or changed."""
        try:
            if not sealed.startswith(FORM):
                raise ValueError("another form")
            raw = base64.b64decode(sealed.removeprefix(FORM), validate=True)
            plain = self._cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError) as error:
            message = f"the secret {name!r} does not open with this server's secret"
            hint = f"restore the file `secret` of the data folder, or set it again: roster secret set {name}"
            raise Error(Code.INTERNAL, message, hint=hint) from error
        members: dict[str, str] = json.loads(plain)
        return members
