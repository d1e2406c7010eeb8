"""Owns uploads: starting one, its signed part addresses, and keeping the parts until a table takes them."""

from __future__ import annotations

import hmac
import shutil
from hashlib import sha256
from pathlib import Path

from roster.base.errors import Code, Error
from roster.model.reference_table import Upload, normalise_name
from roster.operations.bodies import decode
from roster.operations.bodies_tables import UploadBody
from roster.operations.context import Context, Reply, Request

PART_BYTES_MIN = 5_000_000
"""Every part but the last is at least this large."""
UPLOAD_ID = "/data/attributes/file_metadata/upload_id"


def create_upload(context: Context, request: Request) -> Reply:
    """Start an upload; answers one address a part, each good for a few minutes."""
    data = decode(UploadBody, request.body).data
    if data is None or data.attributes is None:
        raise Error(Code.INVALID, "the upload to create is missing", at="/data/attributes")
    asked = data.attributes
    sweep_uploads(context)
    if asked.part_count > 1 and asked.part_size < PART_BYTES_MIN:
        hint = f"at least {PART_BYTES_MIN} bytes when there are several parts"
        raise Error(Code.INVALID, "the parts are too small", at="/data/attributes/part_size", hint=hint)
    try:
        table_name = normalise_name(asked.table_name)
    except Error as error:
        raise error.under("/data/attributes/table_name") from error
    expires_ms = context.clock.now_ms() + int(context.limits.upload_ttl_s * 1000)
    upload = Upload(
        id=context.clock.new_id(),
        table_name=table_name,
        headers=tuple(asked.headers),
        part_count=asked.part_count,
        part_size_bytes=asked.part_size,
        expires_ms=expires_ms,
    )
    context.store.add_upload(upload)
    base = request.headers.get("x-roster-base-url", "")
    urls = [f"{base}{part_path(context.pepper, upload, number)}" for number in range(1, upload.part_count + 1)]
    return Reply({"data": {"id": upload.id, "type": "upload", "attributes": {"part_urls": urls}}})


def part_path(pepper: bytes, upload: Upload, number: int) -> str:
    """The signed path a part is put to."""
    signature = _sign(pepper, upload.id, str(number), str(upload.expires_ms))
    return f"/api/roster/uploads/{upload.id}/parts/{number}?expires={upload.expires_ms}&signature={signature}"


def _sign(pepper: bytes, *parts: str) -> str:
    return hmac.new(pepper, "/".join(("upload", *parts)).encode(), sha256).hexdigest()


def check_address(context: Context, request: Request) -> None:
    """Whether the signed address of a part is ours and still good; needs no body. Error: FORBIDDEN."""
    id, number = request.path["id"], request.path["number"]
    expires = request.query.get("expires", [""])[-1]
    signature = request.query.get("signature", [""])[-1]
    if not hmac.compare_digest(_sign(context.pepper, id, number, expires).encode(), signature.encode()):
        raise Error(Code.FORBIDDEN, "the signature of this address is not right", hint="use a part_url as it was given")
    if context.clock.now_ms() > int(expires):
        raise Error(Code.FORBIDDEN, "this address has expired", hint="create a new upload")


def put_upload_part(context: Context, request: Request) -> Reply:
    """Keep the raw bytes of one part; the signed address is the credential. Putting it again replaces it."""
    check_address(context, request)
    id, number = request.path["id"], request.path["number"]
    folder = context.uploads / id
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"{number}.{context.clock.new_id()}"
    fresh.write_bytes(request.body)
    fresh.replace(part_file(context.uploads, id, int(number)))
    return Reply(headers={"etag": f'"{sha256(request.body).hexdigest()[:32]}"'})


def part_file(uploads: Path, id: str, number: int) -> Path:
    return uploads / id / f"{number}.csv"


def wanted_upload(context: Context, id: str) -> Upload:
    """The upload that a request names. Error: INVALID."""
    upload = context.store.find_upload(id)
    if upload is None:
        raise Error(
            Code.INVALID,
            f"unknown upload {id!r}",
            at=UPLOAD_ID,
            hint="create one; it is forgotten some time after its addresses expired",
        )
    return upload


def parts_of(context: Context, upload: Upload) -> list[Path]:
    """The files of all parts. Error: INVALID naming the parts that have not arrived."""
    paths = [part_file(context.uploads, upload.id, n) for n in range(1, upload.part_count + 1)]
    missing = [str(n) for n, path in enumerate(paths, 1) if not path.exists()]
    if missing:
        expired = context.clock.now_ms() > upload.expires_ms
        raise Error(
            Code.INVALID,
            f"part {', '.join(missing)} of upload {upload.id} has not arrived",
            at=UPLOAD_ID,
            hint="its addresses have expired: create a new upload" if expired else "PUT every part_url first",
        )
    return paths


def forget_upload(context: Context, upload: Upload) -> None:
    """Remove the parts of an upload that became rows; another request with it may have been first."""
    shutil.rmtree(context.uploads / upload.id, ignore_errors=True)


def sweep_uploads(context: Context) -> None:
    """Remove old uploads with their parts: they are kept for as long again as their addresses are good."""
    context.store.drop_uploads(context.clock.now_ms() - int(context.limits.upload_ttl_s * 1000))
    for folder in (path for path in context.uploads.glob("*") if path.is_dir()):
        if context.store.find_upload(folder.name) is None:
            shutil.rmtree(folder, ignore_errors=True)
