"""Owns reading one object of an object store into a file: asks first, reads what it asked about; signs nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import httpx2

from roster.base.errors import Code, Error
from roster.model.source import format_of_name
from roster.model.sync import Fetched
from roster.ports import Reading
from roster.sources.job import Job, check_size
from roster.sources.landing import name_file, writing
from roster.sources.object_urls import Access, Place, access_of, parse_place
from roster.sources.outbound import open_client

ERROR_BYTES_MAX = 2**16
VERSIONS = ("x-amz-version-id", "x-goog-generation")
MISSING = {
    "NoSuchBucket": "bucket",
    "ContainerNotFound": "bucket",
    "NoSuchKey": "key",
    "BlobNotFound": "key",
    "NoSuchVersion": "key",
}
"""How stores name what is not there, in the `Code` of their error bodies."""
_CHANGED = "the object changed while it was read"


@dataclass(frozen=True, slots=True)
class Head:
    """What a store says of an object: `mark` is another for every content; `size` is None when it is not told."""

    etag: str
    mark: str
    size: int | None


def read_object(job: Job, url: str) -> Fetched | None:
    """The object as a file; None when the store says that it is what was read last, which costs one HEAD."""
    place = parse_place(url)
    format = format_of_name(place.key, job.origin.get("format"), at="format")
    access = access_of(place, job.secret)
    with open_client(job.policy, job.limits.silence_s) as client:
        headers = {**access.headers, **_logged_in(client, access)}
        # Google unpacks gzip on the way unless told that the reader can: the length would be another then
        headers["accept-encoding"] = "gzip" if place.scheme == "gs" else "identity"
        head = _ask(client, place, access, headers)
        fingerprint = f"{url} {head.mark}"
        if head.mark and fingerprint == job.fingerprint and not job.full:
            return None
        check_size(job, head.size or 0)
        path = job.folder / f"object.{format}"
        size = _bring(job, client, place, access, headers, head, path)
    name = name_file(path)
    return Fetched((name,), format, fingerprint if head.mark else "", bytes=size)


def _logged_in(client: httpx2.Client, access: Access) -> dict[str, str]:
    if access.login is None:
        return {}
    answer = client.post(access.login.url, data=access.login.form)
    if answer.status_code != 200:
        raise _refusal(answer.status_code, "", "the token service")
    try:
        token = answer.json()["access_token"]
    except (ValueError, KeyError, TypeError) as error:
        raise Error(Code.BUSY, "the token service gave no token") from error
    return {"authorization": f"Bearer {token}"}


def _ask(client: httpx2.Client, place: Place, access: Access, headers: dict[str, str]) -> Head:
    answer = client.head(access.address("HEAD"), headers=headers)
    if answer.status_code != 200:
        if answer.status_code >= 400:  # why is in the body, which an answer to HEAD has not
            first = {**headers, "range": "bytes=0-0"}
            with client.stream("GET", access.address("GET"), headers=first) as told:
                if told.status_code >= 400:
                    raise _failure(told, place)
        raise _failure(answer, place)
    return _head_of(answer)


def _head_of(answer: httpx2.Response) -> Head:
    etag = answer.headers.get("etag", "")
    length = answer.headers.get("content-length", "")
    version = next((answer.headers[name] for name in VERSIONS if name in answer.headers), "")
    told = etag or version or answer.headers.get("last-modified", "")
    size = int(length) if length.isdecimal() else None
    return Head(etag, f"{etag} {version} {told} {length}" if told else "", size)


def _bring(
    job: Job,
    client: httpx2.Client,
    place: Place,
    access: Access,
    headers: dict[str, str],
    head: Head,
    path: Path,
) -> int:
    """Write the object to a file; its bytes. Errors: BUSY when it is not the one that was asked about, or not whole."""
    wanted = {**headers, **({"if-match": head.etag} if head.etag and not head.etag.startswith("W/") else {})}
    done = 0
    with client.stream("GET", access.address("GET"), headers=wanted) as answer:
        if answer.status_code != 200:
            raise _failure(answer, place)
        if _head_of(answer).etag != head.etag or _head_of(answer).size not in (None, head.size):
            raise Error(Code.BUSY, _CHANGED)
        try:
            with writing(path) as file:
                for chunk in answer.iter_raw():
                    done += len(chunk)
                    check_size(job, done)
                    file.write(chunk)
                    job.report(Reading(bytes=done, bytes_total=head.size))
        except httpx2.HTTPError as error:
            raise _cut(done, head.size) from error
    if head.size is not None and done != head.size:
        raise _cut(done, head.size)
    return done


def _cut(done: int, size: int | None) -> Error:
    whole = f" of {size}" if size is not None else ""
    return Error(Code.BUSY, f"the object was cut off after {done}{whole} bytes")


def _failure(answer: httpx2.Response, place: Place) -> Error:
    status = answer.status_code
    if 300 <= status < 400:
        region = answer.headers.get("x-amz-bucket-region", "")
        hint = f"the bucket is in region {region}" if region else "give the secret the store's own endpoint and region"
        return Error(Code.INVALID, f"the store answers {status}, which leads elsewhere and is not followed", hint=hint)
    told = _code_of(answer)
    if MISSING.get(told) == "bucket":
        return Error(Code.NOT_FOUND, f"there is no bucket {place.bucket!r}")
    if status == 404 or MISSING.get(told) == "key":
        return Error(Code.NOT_FOUND, f"there is no object {place.key!r} in {place.bucket!r}")
    return _refusal(status, told, "the store")


def _refusal(status: int, told: str, who: str) -> Error:
    shown = f"{status} {told}".strip()
    match status:
        case 401 | 403:
            return Error(Code.UNAUTHENTICATED, f"{who} refuses these credentials: {shown}", hint="see its secret")
        case 412:
            return Error(Code.BUSY, _CHANGED)
        case 400:
            return Error(Code.INVALID, f"{who} refuses the request: {shown}", hint="see region and key in its secret")
        case _:
            return Error(Code.BUSY, f"{who} answers {shown}")


def _code_of(answer: httpx2.Response) -> str:
    """The code in an error's body, in XML at all three stores; empty when there is none."""
    text = b""
    for chunk in answer.iter_raw(ERROR_BYTES_MAX) if not answer.is_closed else ():
        text += chunk
        if len(text) >= ERROR_BYTES_MAX:
            break
    found = re.search(rb"<Code>([A-Za-z0-9]{1,64})</Code>", text)
    told = answer.headers.get("x-ms-error-code", "")
    return found[1].decode() if found else re.sub(r"[^A-Za-z0-9]", "", told)[:64]
