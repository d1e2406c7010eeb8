"""Owns telling the webhook: one signed POST a notice or portion. Tries once; whoever calls tries again."""

from __future__ import annotations

import hmac
import json
from dataclasses import asdict
from hashlib import sha256

import httpx2

from roster.base.errors import Code, Error
from roster.base.time import instant, iso_ms
from roster.ports import Notice, SentMembers

TIMEOUT_S = 10.0
SIGNATURE = "x-roster-signature"


class Webhook:
    """The port Notices over HTTP. Redirects are not followed; the answer's body is not read."""

    def __init__(self, url: str, secret: str) -> None:
        self._url = url
        self._secret = secret.encode()

    def tell(self, notice: Notice | SentMembers) -> None:
        """POST the notice as JSON, signed with HMAC-SHA256 over the body. Error: BUSY unless the answer is 2xx."""
        body = json.dumps(notice_body(notice), separators=(",", ":")).encode()
        headers = {"content-type": "application/json", SIGNATURE: sign(self._secret, body)}
        try:
            with (
                httpx2.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client,
                client.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                status = answer.status_code
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise Error(Code.BUSY, f"the webhook cannot be reached: {type(error).__name__}") from error
        if not 200 <= status < 300:
            raise Error(Code.BUSY, f"the webhook answered {status}")


def notice_body(notice: Notice | SentMembers) -> dict[str, object]:
    """What the webhook is sent: times as text, under their names without the unit."""
    plain = asdict(notice)
    times = {name.removesuffix("_ms"): iso_ms(instant(plain.pop(name))) for name in [*plain] if name.endswith("_ms")}
    kind = "segment_members" if isinstance(notice, SentMembers) else "source_state"
    return {"type": kind, **plain, **times}


def sign(secret: bytes, body: bytes) -> str:
    """The signature of a body: `sha256=` and the HMAC in hex."""
    return "sha256=" + hmac.new(secret, body, sha256).hexdigest()
