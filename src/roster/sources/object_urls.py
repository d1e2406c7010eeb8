"""Owns the addresses of objects in S3, Google and Azure stores, signed by what a secret holds; connects to none.

Signing is obstore's. Its own HTTP client is not used: it resolves names by itself and follows redirects. Nothing
comes from the environment or from a cloud's metadata service: an empty secret reads as anybody may.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping as Map
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from roster.base.errors import Code, Error

EXPIRES = timedelta(minutes=15)
REGION = "us-east-1"
GCS = "https://storage.googleapis.com"
AZURE_VERSION = "2023-11-03"
_HTTP: Any = {"allow_http": True}  # for signing only: nothing is sent by it
_KEY_HINT = "a key has no empty part, no `.` or `..` and no control characters"


@dataclass(frozen=True, slots=True)
class Place:
    """An object: the scheme of its address, its bucket or container, its key, as written."""

    scheme: str
    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class Login:
    """What Azure's token service is asked for a token, before the object can be."""

    url: str
    form: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """How an object is reached: `address(method)` is its address for HEAD or GET, with `headers`.

    `login`, when given, is to be done first: its token goes into the header Authorization.
    """

    address: Callable[[Literal["HEAD", "GET"]], str]
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    login: Login | None = None


def parse_place(url: str) -> Place:
    """The object that an address names; the key stands as it is, nothing in it is encoded. Error: INVALID."""
    found = re.fullmatch(r"(s3|gs|az)://([A-Za-z0-9$][A-Za-z0-9._-]{0,254})/(.+)", url, re.DOTALL)
    if found is None:
        hint = "s3://bucket/key, gs://bucket/key or az://container/blob"
        raise Error(Code.INVALID, f"{url!r} is no object", hint=hint)
    key = found[3]
    if any(part in ("", ".", "..") for part in key.split("/")) or any(ord(c) < 32 or ord(c) == 127 for c in key):
        raise Error(Code.INVALID, f"{key!r} is no key of an object", hint=_KEY_HINT)
    return Place(found[1], found[2], key)


def access_of(place: Place, secret: Map[str, str]) -> Access:
    """How to reach an object with the members of a secret. Error: INVALID for credentials that cannot be used."""
    try:
        match place.scheme:
            case "s3":
                return _s3(place, secret)
            case "gs":
                return _gcs(place, secret)
            case _:
                return _azure(place, secret)
    except (BaseError, TypeError, ValueError) as error:
        raise _unusable(error) from error


def _s3(place: Place, secret: Map[str, str]) -> Access:
    region = _plain(secret, "region", r"[a-z0-9-]{1,64}") or REGION
    endpoint = _endpoint(secret) or f"https://s3.{region}.amazonaws.com"
    id, key = secret.get("access_key_id", ""), secret.get("secret_access_key", "")
    if not id and not key:
        return _anonymous(endpoint, place)
    if not id or not key:
        raise Error(Code.INVALID, "the secret holds only half a key", hint="access_key_id and secret_access_key")
    keys: Any = {"access_key_id": id, "secret_access_key": key}
    if secret.get("session_token"):
        keys["session_token"] = secret["session_token"]
    store = S3Store(place.bucket, config=keys, endpoint=endpoint, region=region, client_options=_HTTP)
    return Access(lambda method: _sign(store, method, place.key))


def _gcs(place: Place, secret: Map[str, str]) -> Access:
    endpoint = _endpoint(secret) or GCS
    given = secret.get("service_account_key", "")
    if not given:
        return _anonymous(endpoint, place)
    account = json.loads(given)
    needed = ("client_email", "private_key", "private_key_id")
    missing = [name for name in needed if not isinstance(account, dict) or not account.get(name)]
    if missing:
        hint = f"the JSON file of a service account's key; it lacks {', '.join(missing)}"
        raise Error(Code.INVALID, "service_account_key is no key of a service account", hint=hint)
    plain = json.dumps({name: account[name] for name in needed})  # other members could lead elsewhere
    store = GCSStore(place.bucket, service_account_key=plain, base_url=endpoint, client_options=_HTTP)
    return Access(lambda method: _sign(store, method, place.key))


def _azure(place: Place, secret: Map[str, str]) -> Access:
    account = _plain(secret, "account_name", r"[a-z0-9-]{3,64}")
    if not account:
        hint = "the secret must hold account_name; alone it reads a public container"
        raise Error(Code.INVALID, "the Azure account is not named", hint=hint)
    endpoint = _endpoint(secret) or f"https://{account}.blob.core.windows.net"
    open_to_all = _anonymous(endpoint, place)
    version = {"x-ms-version": AZURE_VERSION}
    if secret.get("sas_token"):
        _check_private(endpoint)
        token = secret["sas_token"].strip().removeprefix("?")
        return Access(lambda method: f"{open_to_all.address(method)}?{token}")
    if secret.get("account_key"):
        store = AzureStore(
            place.bucket,
            account_name=account,
            account_key=secret["account_key"].strip(),
            endpoint=endpoint,
            client_options=_HTTP,
        )
        # signed for GET always: Azure asks the same right for HEAD, for which obstore 0.12 gives none
        return Access(lambda method: _decoded(_sign(store, "GET", place.key), place, account, secret["account_key"]))
    if secret.get("client_secret"):
        _check_private(endpoint)
        return Access(open_to_all.address, version, _azure_login(secret))
    return Access(open_to_all.address, version)


def _decoded(address: str, place: Place, account: str, key: str) -> str:
    """The address signed anew when its path is encoded: obstore 0.12 signs that path, Azure the decoded one."""
    parts = urlsplit(address)
    if unquote(parts.path) == parts.path:
        return address
    given = dict(parse_qsl(parts.query))
    signed = [given["sp"], given["st"], given["se"], f"/blob/{account}/{place.bucket}/{place.key}"]
    lines = [*signed, "", "", "", given["sv"], given["sr"], *[""] * 7]  # what is left empty is not restricted
    given["sig"] = b64encode(hmac.digest(b64decode(key), "\n".join(lines).encode(), sha256)).decode()
    return parts._replace(query=urlencode(given)).geturl()


def _azure_login(secret: Map[str, str]) -> Login:
    tenant = _plain(secret, "tenant_id", r"[A-Za-z0-9.-]{1,128}")
    if not tenant or not secret.get("client_id"):
        raise Error(Code.INVALID, "the secret holds only part of an application", hint="tenant_id, client_id")
    form = {
        "grant_type": "client_credentials",
        "client_id": secret["client_id"],
        "client_secret": secret["client_secret"],
        "scope": "https://storage.azure.com/.default",
    }
    return Login(f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token", form)


def _anonymous(endpoint: str, place: Place) -> Access:
    address = f"{endpoint}/{place.bucket}/{quote(place.key, safe='/')}"
    return Access(lambda method: address)


def _sign(store: S3Store | GCSStore | AzureStore, method: Literal["HEAD", "GET"], key: str) -> str:
    try:
        return obstore.sign(store, method, key, EXPIRES)
    except (BaseError, TypeError, ValueError) as error:
        raise _unusable(error) from error


def _unusable(error: Exception) -> Error:
    """What obstore says of them may show them: only that they cannot be used is told."""
    hint = "see the documentation of file sources for what a secret holds"
    return Error(Code.INVALID, "the secret's credentials cannot be used", hint=hint)


def _endpoint(secret: Map[str, str]) -> str:
    given = secret.get("endpoint", "").strip().rstrip("/")
    if not given:
        return ""
    try:
        parts = urlsplit(given)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.username or parts.password or parts.query or parts.fragment:
        raise Error(Code.INVALID, "the secret's endpoint is no address", hint="such as https://minio.example.com:9000")
    return given


def _check_private(endpoint: str) -> None:
    """Tokens, other than signatures, are good for more than one request: they go over TLS only."""
    parts = urlsplit(endpoint)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise Error(Code.INVALID, "the endpoint would be sent a token in the clear", hint="use https")


def _plain(secret: Map[str, str], name: str, form: str) -> str:
    """A member that becomes part of a host or path."""
    given = secret.get(name, "").strip()
    if given and re.fullmatch(form, given) is None:
        raise Error(Code.INVALID, f"the secret's {name} has characters that it cannot have")
    return given
