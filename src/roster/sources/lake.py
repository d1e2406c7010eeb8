"""Owns where the files of a table format lie and with which credentials they are read; reads none of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping as Map
from dataclasses import dataclass
from urllib.parse import urlsplit

from roster.base.errors import Code, Error
from roster.sources.job import Job
from roster.sources.web import check_address, tell

REGION = "us-east-1"
RETRIES = "3"
RETRY_TIMEOUT = "30s"
_SCHEMES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
_ABSENT = re.compile(r"NoSuchBucket|NoSuchKey|NoSuchContainer|ContainerNotFound|BlobNotFound|404 Not Found", re.I)
_REFUSED = re.compile(
    r"InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|AuthenticationFailed"
    r"|ACCESS_DENIED|AccessDenied|401 Unauthorized|403 Forbidden|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH",
    re.I,
)
_DAMAGED = re.compile(r"Parquet error|invalid parquet|Thrift|invalid data|Invalid JSON|corrupt", re.I)
_CUT = re.compile(r"HTTP error|error sending request|NETWORK_CONNECTION|timed? ?out|connection", re.I)


@dataclass(frozen=True, slots=True)
class Store:
    """An object store that may be read: what kind, which bucket, at which address."""

    kind: str
    bucket: str
    address: str
    region: str


def find_store(job: Job, url: str, at: str) -> Store:
    """The store that an address such as s3://bucket/key names, its hosts allowed. Errors: INVALID, FORBIDDEN, BUSY."""
    parts = urlsplit(url)
    kind = _SCHEMES.get(parts.scheme.lower(), "")
    bucket = parts.username or parts.hostname or "" if kind == "az" else parts.netloc
    if not kind or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", bucket):
        raise Error(Code.INVALID, f"{url!r} is in no object store", at=at, hint="s3://bucket/key, gs:// or az://")
    secret = job.secret
    region = secret.get("region") or REGION
    given = secret.get("endpoint", "")
    match kind:
        case "s3":
            hosts = [given or f"https://s3.{region}.amazonaws.com"]
            hosts += [] if given else [f"https://{bucket}.s3.{region}.amazonaws.com"]
        case "gs":
            hosts = [given or "https://storage.googleapis.com", *_token_address(secret)]
        case _:
            account = secret.get("account_name", "")
            if not re.fullmatch(r"[a-z0-9]{3,24}", account):
                raise Error(Code.INVALID, "the secret has no account_name", at="secret")
            hosts = [given or f"https://{account}.blob.core.windows.net"]
            hosts += ["https://login.microsoftonline.com"] if secret.get("client_secret") else []
    addresses = [check_address(host, job.policy, "endpoint") for host in hosts]
    return Store(kind, bucket, addresses[0], region)


def _token_address(secret: Map[str, str]) -> list[str]:
    """Where a Google key is turned into a token; the key says it."""
    if not secret.get("service_account_key"):
        return []
    try:
        return [str(json.loads(secret["service_account_key"])["token_uri"])]
    except (ValueError, KeyError, TypeError) as error:
        message = "service_account_key is no key of a service account"
        raise Error(Code.INVALID, message, at="secret", hint="the JSON file as Google gives it") from error


WHOLE_CREDENTIALS: dict[str, tuple[frozenset[str], ...]] = {
    "s3": (frozenset({"access_key_id", "secret_access_key"}),),
    "az": (
        frozenset({"account_key"}),
        frozenset({"sas_token"}),
        frozenset({"tenant_id", "client_id", "client_secret"}),
    ),
}
"""Sets of members that prove somebody by themselves, for each kind of store."""


def object_store_options(store: Store, secret: Map[str, str]) -> dict[str, str]:
    """Options of Rust's object_store, which delta-rs reads through. Without credentials, requests are not signed."""
    options = {
        "max_retries": RETRIES,
        "retry_timeout": RETRY_TIMEOUT,
        "allow_http": str(store.address.startswith("http:")).lower(),
    }
    match store.kind:
        case "s3":
            options |= {"aws_region": store.region, "aws_endpoint": store.address}
            names = {
                "access_key_id": "aws_access_key_id",
                "secret_access_key": "aws_secret_access_key",
                "session_token": "aws_session_token",
            }
            unsigned = {"aws_skip_signature": "true"}
        case "gs":
            options |= {"google_base_url": store.address} if secret.get("endpoint") else {}
            names = {"service_account_key": "google_service_account_key"}
            unsigned = {"google_skip_signature": "true"}
        case _:
            options |= {"azure_endpoint": store.address} if secret.get("endpoint") else {}
            names = {
                "account_name": "azure_storage_account_name",
                "account_key": "azure_storage_account_key",
                "sas_token": "azure_storage_sas_key",
                "tenant_id": "azure_storage_tenant_id",
                "client_id": "azure_storage_client_id",
                "client_secret": "azure_storage_client_secret",
            }
            unsigned = {"azure_skip_signature": "true"}
    _check_whole(store.kind, secret)
    found = {option: secret[name] for name, option in names.items() if secret.get(name)}
    signed = any(name in found for name in names.values() if name != "azure_storage_account_name")
    return options | found | ({} if signed else unsigned)


def _check_whole(kind: str, secret: Map[str, str]) -> None:
    """Credentials in part would make the library ask the machine's own identity for the rest. Error: INVALID."""
    given = {name for name, value in secret.items() if value}
    wholes = WHOLE_CREDENTIALS.get(kind, ())
    asked = given & set().union(*wholes)
    if asked and not any(whole <= given for whole in wholes):
        hint = "give " + ", or ".join(" with ".join(sorted(whole)) for whole in wholes)
        raise Error(Code.INVALID, f"{', '.join(sorted(asked))} alone are no credentials", at="secret", hint=hint)


def store_failure(error: Exception, job: Job, what: str) -> Error:
    """What a library's failure means: absent, refused, damaged, or cut off. Libraries tell it in their text only."""
    text, said = str(error), tell(error, job.secret)
    if isinstance(error, FileNotFoundError) or _ABSENT.search(text):
        return Error(Code.NOT_FOUND, f"{what} is not there: {said}")
    if isinstance(error, PermissionError) or _REFUSED.search(text):
        return Error(Code.UNAUTHENTICATED, f"the store does not accept the credentials: {said}", at="secret")
    if _CUT.search(text):
        return Error(Code.BUSY, f"{what} cannot be read now: {said}")
    if _DAMAGED.search(text):
        return Error(Code.INVALID, f"{what} is damaged: {said}")
    if isinstance(error, OSError):
        return Error(Code.BUSY, f"{what} cannot be read now: {said}")
    return Error(Code.INVALID, f"{what} cannot be read: {said}")
