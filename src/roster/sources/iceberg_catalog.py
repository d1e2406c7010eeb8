"""Owns asking an Iceberg REST catalog for one table, by the REST specification; takes nothing else from its answers.

pyiceberg's own client lets the catalog's answer name classes to import, another address to ask, and signing with
this machine's AWS credentials. Two requests are simpler to keep within bounds than that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

import httpx2

from roster.base.errors import Code, Error
from roster.sources.job import Job
from roster.sources.outbound import open_client
from roster.sources.web import check_address, tell

LENT = ("s3.access-key-id", "s3.secret-access-key", "s3.session-token")
"""Of a catalog's configuration these are taken, and no addresses."""
SEPARATOR = "%1F"


@dataclass(frozen=True, slots=True)
class Found:
    """Where a table's metadata is; the metadata and credentials for its files when a catalog gave them."""

    location: str
    metadata: Any = None
    credentials: dict[str, str] = field(default_factory=dict, repr=False)


def ask_catalog(job: Job, address: str, name: str) -> Found:
    """The table as its catalog knows it. Errors: NOT_FOUND, UNAUTHENTICATED, FORBIDDEN, INVALID, BUSY."""
    from pyiceberg.table.metadata import TableMetadataUtil

    base = check_address(address, job.policy, "catalog")
    with open_client(job.policy, job.limits.silence_s) as client:
        headers = {"x-iceberg-access-delegation": "vended-credentials"}
        if token := job.secret.get("token") or _token(job, client, base):
            headers["authorization"] = f"Bearer {token}"
        warehouse = job.origin.get("warehouse")
        params = {"warehouse": warehouse} if warehouse else {}
        config = _get(job, client, f"{base}/v1/config", headers, params)
        merged = {**_plain(config.get("defaults")), **_plain(config.get("overrides"))}
        prefix = "".join(f"{quote(part, safe='')}/" for part in merged.get("prefix", "").split("/") if part)
        *namespace, table = name.split(".")
        between = quote(unquote(merged.get("namespace-separator", SEPARATOR)), safe="")
        place = f"{between.join(quote(part, safe='') for part in namespace)}/tables/{quote(table, safe='')}"
        answer = _get(job, client, f"{base}/v1/{prefix}namespaces/{place}", headers, {})
    lent = {key: value for key, value in _lent(answer).items() if key in LENT}
    metadata = TableMetadataUtil.parse_obj(answer["metadata"]) if isinstance(answer.get("metadata"), dict) else None
    return Found(str(answer.get("metadata-location") or ""), metadata, lent)


def _lent(answer: dict[str, Any]) -> dict[str, str]:
    """Credentials for the table's files: those with the longest prefix of its place win over its configuration."""
    place = str(answer.get("metadata-location") or "")
    fitting = [
        one
        for one in answer.get("storage-credentials") or ()
        if isinstance(one, dict) and place.startswith(str(one.get("prefix", "")))
    ]
    best = max(fitting, key=lambda one: len(str(one.get("prefix", ""))), default={})
    return {**_plain(answer.get("config")), **_plain(best.get("config"))}


def _plain(found: Any) -> dict[str, str]:
    return (
        {str(key): value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
    )


def _token(job: Job, client: httpx2.Client, base: str) -> str:
    """A token for the secret's credential (`id:secret`); empty when the catalog is open."""
    credential = job.secret.get("credential", "")
    if not credential:
        return ""
    given = job.origin.get("token_url")
    address = check_address(given, job.policy, "token_url") if given else f"{base}/v1/oauth/tokens"
    id, _, secret = credential.rpartition(":")
    form = {"grant_type": "client_credentials", "client_id": id, "client_secret": secret}
    form["scope"] = job.origin.get("scope", "catalog")
    answer = client.post(address, data=form)
    if answer.status_code == 429 or answer.status_code >= 500:
        raise Error(Code.BUSY, f"the catalog gives no token now: it answered {answer.status_code}")
    try:
        token = answer.json().get("access_token") if answer.is_success else None
    except (ValueError, AttributeError):
        token = None
    if not token:
        message = f"the catalog does not accept the credential: it answered {answer.status_code}"
        raise Error(Code.UNAUTHENTICATED, message, at="secret", hint="credential is `id:secret`")
    return str(token)


def _get(job: Job, client: httpx2.Client, url: str, headers: dict[str, str], params: dict[str, str]) -> dict[str, Any]:
    answer = client.get(url, headers=headers, params=params)
    try:
        found = answer.json() if answer.is_success else None
    except ValueError as error:
        raise Error(Code.INVALID, "the catalog did not answer with JSON", at="catalog") from error
    if isinstance(found, dict):
        return found
    status = answer.status_code
    said = tell(_message(answer), job.secret)
    match status:
        case 401:
            raise Error(Code.UNAUTHENTICATED, f"the catalog does not accept the credentials: {said}", at="secret")
        case 403:
            raise Error(Code.FORBIDDEN, f"the catalog: {said}", at="secret")
        case 404:
            raise Error(Code.NOT_FOUND, f"the catalog: {said}", at="table")
    if status == 429 or status >= 500:
        raise Error(Code.BUSY, f"the catalog cannot answer now: {said}")
    if 300 <= status < 400:
        raise Error(Code.FORBIDDEN, "the catalog answered with a redirect, which is not followed", at="catalog")
    raise Error(Code.INVALID, f"the catalog: {said}", at="catalog")


def _message(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"it answered {answer.status_code}"
