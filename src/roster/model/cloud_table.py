"""Owns what a cloud table is: where its file lies, which secret opens it, how it stands. Connects to nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping as Map
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import assert_never

from roster.base.errors import Code, Error
from roster.model.reference_table import Table
from roster.model.source import FORMATS, Origin
from roster.model.sync import Failure, State, Step, Sync

AT = "/data/attributes/file_metadata/access_details"
FILE_PATH_CHARACTERS_MAX = 1024

Details = Map[str, Map[str, str]]
"""Access details as a request gives them: `aws_detail`, `gcp_detail`, `azure_detail` with their members."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """How the tables of one source are declared: their detail and its members, the scheme of their address.

    `account` names the secret, with `secret` before it. `members` would else have to be in the secret: by their
    name there.
    """

    detail: str
    scheme: str
    bucket: str
    account: str
    secret: str
    others: tuple[str, ...] = ()
    members: tuple[tuple[str, str], ...] = ()


CLOUDS = {
    "S3": Cloud("aws_detail", "s3", "aws_bucket_name", "aws_account_id", "aws"),
    "GCS": Cloud("gcp_detail", "gs", "gcp_bucket_name", "gcp_project_id", "gcp", ("gcp_service_account_email",)),
    "AZURE": Cloud(
        "azure_detail",
        "az",
        "azure_container_name",
        "azure_storage_account_name",
        "azure",
        ("azure_client_id", "azure_tenant_id"),
        (
            ("account_name", "azure_storage_account_name"),
            ("client_id", "azure_client_id"),
            ("tenant_id", "azure_tenant_id"),
        ),
    ),
}

_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]{0,254}")
_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,89}")


def origin_of(source: str, details: Details) -> Origin:
    """Where the rows of a cloud table come from. Error: INVALID with the place of what is missing or wrong.

    The secret is named after the account, such as `aws-123456789012`, whether there is one or not.
    """
    cloud = CLOUDS[source]
    given = details.get(cloud.detail)
    if given is None:
        hint = f"with {', '.join((cloud.account, cloud.bucket, 'file_path', *cloud.others))}"
        message = f"{cloud.detail} is required for tables with {source!r} source"
        raise Error(Code.INVALID, message, at=f"{AT}/{cloud.detail}", hint=hint)
    for name in (cloud.account, cloud.bucket, "file_path", *cloud.others):
        if not given.get(name, "").strip():
            message = f"{name} is required for tables with {source!r} source"
            raise Error(Code.INVALID, message, at=f"{AT}/{cloud.detail}/{name}")
    _check(cloud, given, cloud.bucket, _BUCKET)
    _check(cloud, given, cloud.account, _ACCOUNT)
    path = _file_path(cloud, given["file_path"])
    options = {
        "url": f"{cloud.scheme}://{given[cloud.bucket]}/{path}",
        "format": _format(path),
        "secret": f"{cloud.secret}-{given[cloud.account].replace(':', '-')}",
    }
    return Origin("file", tuple(sorted(options.items())))


def members_of(table: Table) -> dict[str, str]:
    """What the access details of a cloud table say that readers look for in a secret; its secret says it better."""
    cloud = CLOUDS.get(table.source)
    if cloud is None or not table.access_details:
        return {}
    given: dict[str, str] = json.loads(table.access_details).get(cloud.detail, {})
    return {member: given[name] for member, name in cloud.members if name in given}


def _check(cloud: Cloud, given: Map[str, str], name: str, form: re.Pattern[str]) -> None:
    if form.fullmatch(given[name]) is None:
        hint = "letters, digits, '.', '_' and '-'"
        raise Error(Code.INVALID, f"{given[name]!r} is no {name}", at=f"{AT}/{cloud.detail}/{name}", hint=hint)


def _file_path(cloud: Cloud, text: str) -> str:
    path = text.removeprefix("/")
    odd = not path.isprintable() or any(part in ("", ".", "..") for part in path.split("/"))
    if odd or len(path) > FILE_PATH_CHARACTERS_MAX:
        hint = f"the whole path of one file in its bucket, at most {FILE_PATH_CHARACTERS_MAX} characters"
        raise Error(Code.INVALID, f"{text[:80]!r} is no file path", at=f"{AT}/{cloud.detail}/file_path", hint=hint)
    return path


def _format(path: str) -> str:
    """CSV, unless the ending says otherwise: files in buckets often have none."""
    ending = PurePosixPath(path.lower().removesuffix(".gz")).suffix
    return FORMATS.get(ending) or "csv"


def merge_details(kept: Details, given: Details) -> dict[str, dict[str, str]]:
    """Access details with the given members in place of the kept ones."""
    names = dict.fromkeys((*kept, *given))
    return {name: {**kept.get(name, {}), **given.get(name, {})} for name in names}


def shown_status(table: Table, sync: Sync | None) -> str:
    """The status of a table as the API shows it: DONE, before a first good sync PROCESSING, after a bad one ERROR."""
    if table.origin is None:
        return table.status
    if sync is None:
        return "PROCESSING"
    match sync.state:
        case State.SYNCING:
            return "PROCESSING"
        case State.FAILING | State.WAITING:
            return "ERROR"
        case State.OK | State.STALE | State.DRIFTED:
            return "DONE"
        case _:
            assert_never(sync.state)


VALIDATION_ERROR = "VALIDATION_ERROR"
_ERROR_TYPES = {
    Code.NOT_FOUND: "CONFIGURATION_ERROR",
    Code.UNAUTHENTICATED: "CONFIGURATION_ERROR",
    Code.FORBIDDEN: "CONFIGURATION_ERROR",
    Code.UNSUPPORTED: "CONFIGURATION_ERROR",
    Code.TOO_LARGE: "QUOTA_EXCEEDED",
    Code.CONFLICT: VALIDATION_ERROR,
    Code.STALE: "SYSTEM_ERROR",
    Code.RATE_LIMITED: "SYSTEM_ERROR",
    Code.OVERLOADED: "SYSTEM_ERROR",
    Code.LATE: "SYSTEM_ERROR",
    Code.BUSY: "SYSTEM_ERROR",
    Code.TIMEOUT: "SYSTEM_ERROR",
    Code.INTERNAL: "SYSTEM_ERROR",
}
SCHEMA_ERROR = "TABLE_SCHEMA_ERROR"


def error_type(failure: Failure, step: Step) -> str:
    """The documented `error_type` of a failed sync. CONFLICT is a file that lost too many rows to be believed."""
    code = Code(failure.code)
    if code is not Code.INVALID:
        return _ERROR_TYPES[code]
    if step is Step.READ:  # the file has not been looked into yet: what is wrong are the details or the secret
        return "CONFIGURATION_ERROR"
    # of a wrong file only the message says whether a column is what it lacks
    return SCHEMA_ERROR if "has no column" in failure.message else "FILE_FORMAT_ERROR"
