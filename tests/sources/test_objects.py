"""Reading objects: from a real S3-compatible server, and from stores that misbehave on purpose."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import httpx2
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from object_servers import ACCOUNT, AZURE_KEY, S3Store, ScriptedStore, Told, azure_store
from roster.base.errors import Code, Error
from roster.ports import Reading
from roster.sources.files import read
from roster.sources.job import Job
from roster.sources.object_urls import access_of, parse_place
from roster.sources.policy import Policy

Make = Callable[..., Job]
ROWS = b"id,tier\n1,gold\n2,silver\n"
URL = "s3://shop/dir/people.csv"
SIGNATURE = "a-secret/key+of=the tests"


@pytest.fixture
def bucket(store: S3Store) -> S3Store:
    store.put("/shop")
    store.put("/shop/dir/people.csv", ROWS)
    return store


def refusal(job: Job) -> Error:
    with pytest.raises(Error) as caught:
        read(job)
    shown = caught.value.text()
    assert SIGNATURE not in shown
    assert "Signature" not in shown.replace("SignatureDoesNotMatch", "")
    return caught.value


def test_an_object_is_read(bucket: S3Store, make_job: Make, readings: list[Reading]) -> None:
    job = make_job(url=URL, secret=bucket.secret)
    fetched = read(job)
    assert fetched is not None
    assert (fetched.names, fetched.format, fetched.bytes) == (("object.csv",), "csv", len(ROWS))
    assert (job.folder / "object.csv").read_bytes() == ROWS
    assert readings[-1] == Reading(bytes=len(ROWS), bytes_total=len(ROWS))


def test_an_unchanged_object_is_only_asked_about(bucket: S3Store, make_job: Make) -> None:
    bucket.put("/shop/still.csv", ROWS)
    first = read(make_job(url="s3://shop/still.csv", secret=bucket.secret))
    assert first is not None
    assert bucket.asked("/shop/still.csv") == ["HEAD", "GET"]
    assert read(make_job(url="s3://shop/still.csv", secret=bucket.secret, fingerprint=first.fingerprint)) is None
    assert bucket.asked("/shop/still.csv") == ["HEAD", "GET", "HEAD"]


def test_a_changed_object_is_read_again(bucket: S3Store, make_job: Make) -> None:
    first = read(make_job(url=URL, secret=bucket.secret))
    assert first is not None
    bucket.put("/shop/dir/people.csv", ROWS.replace(b"gold", b"lead"))
    second = read(make_job(url=URL, secret=bucket.secret, fingerprint=first.fingerprint))
    assert second is not None
    assert second.fingerprint != first.fingerprint


def test_a_removed_object_is_not_found(bucket: S3Store, make_job: Make) -> None:
    bucket.put("/shop/gone.csv", ROWS)
    first = read(make_job(url="s3://shop/gone.csv", secret=bucket.secret))
    assert first is not None
    bucket.remove("/shop/gone.csv")
    error = refusal(make_job(url="s3://shop/gone.csv", secret=bucket.secret, fingerprint=first.fingerprint))
    assert (error.code, error.message) == (Code.NOT_FOUND, "there is no object 'gone.csv' in 'shop'")


def test_a_missing_bucket_is_told_from_a_missing_object(bucket: S3Store, make_job: Make) -> None:
    error = refusal(make_job(url="s3://nowhere/a.csv", secret=bucket.secret))
    assert (error.code, error.message) == (Code.NOT_FOUND, "there is no bucket 'nowhere'")


def test_an_empty_secret_reads_as_anybody(bucket: S3Store, make_job: Make) -> None:
    endpoint = {"endpoint": bucket.secret["endpoint"]}
    assert refusal(make_job(url=URL, secret=endpoint)).code is Code.UNAUTHENTICATED


def test_keys_with_odd_characters(bucket: S3Store, make_job: Make) -> None:
    key = "dir/a b+c%20d=é&?#.csv"
    bucket.put("/shop/" + quote(key), ROWS)
    assert read(make_job(url=f"s3://shop/{key}", secret=bucket.secret)) is not None


@pytest.mark.parametrize("url", ["s3://shop", "s3:///a.csv", "http://shop/a.csv", "s3://a@b/c.csv", "s3://a:1/c.csv"])
def test_what_is_no_object_is_said_to_be_none(url: str, make_job: Make) -> None:
    assert refusal(make_job(url=url)).code is Code.INVALID


@pytest.mark.parametrize("key", ["a//b.csv", "a/../b.csv", "./b.csv", "a\nb.csv"])
def test_keys_that_could_mean_another(key: str, make_job: Make) -> None:
    assert refusal(make_job(url=f"s3://shop/{key}")).code is Code.INVALID


def scripted(head: Told, get: Told | None = None) -> ScriptedStore:
    return ScriptedStore(lambda method, path: head if method == "HEAD" else get or head)


GOOD = Told(content=ROWS, headers={"etag": '"1"'})


def job_at(make: Make, server: ScriptedStore, **more: Any) -> Job:
    return make(url=URL, secret=server.secret, **more)


def test_an_object_cut_off_is_refused(make_job: Make) -> None:
    cut = Told(content=ROWS, headers={"etag": '"1"'}, size=len(ROWS) + 10)
    with scripted(cut) as server:
        error = refusal(job_at(make_job, server))
    assert error.code is Code.BUSY
    assert f"cut off after {len(ROWS)} of {len(ROWS) + 10} bytes" in error.message


def test_an_object_that_changes_meanwhile_is_refused(make_job: Make) -> None:
    with scripted(GOOD, Told(412)) as server:
        assert refusal(job_at(make_job, server)).code is Code.BUSY
        assert server.asked[-1][2]["if-match"] == '"1"'
    with scripted(GOOD, Told(content=ROWS, headers={"etag": '"2"'})) as server:
        assert refusal(job_at(make_job, server)).code is Code.BUSY
    with scripted(GOOD, Told(content=ROWS + b"3,lead\n", headers={"etag": '"1"'})) as server:
        assert refusal(job_at(make_job, server)).code is Code.BUSY


def test_an_object_too_large_is_not_asked_for(make_job: Make) -> None:
    with scripted(GOOD) as server:
        assert refusal(job_at(make_job, server, bytes_max=len(ROWS) - 1)).code is Code.TOO_LARGE
        assert server.methods() == ["HEAD"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_redirects_are_not_followed(make_job: Make, status: int, method: str) -> None:
    """Neither to a refused address nor to an allowed one: credentials would go along."""
    with scripted(GOOD) as other:
        for target in ("http://169.254.169.254/latest/meta-data/", f"{other.url}/stolen"):
            leading = Told(status, headers={"location": target})
            with scripted(leading if method == "HEAD" else GOOD, leading) as server:
                error = refusal(job_at(make_job, server))
            assert (error.code, "not followed" in error.message) == (Code.INVALID, True)
        assert other.asked == []


def test_the_region_of_a_bucket_elsewhere_is_told(make_job: Make) -> None:
    with scripted(Told(301, headers={"x-amz-bucket-region": "eu-central-1"})) as server:
        assert "eu-central-1" in refusal(job_at(make_job, server)).hint


@pytest.mark.parametrize(
    ("status", "told", "code"),
    [
        (403, "SignatureDoesNotMatch", Code.UNAUTHENTICATED),
        (403, "InvalidAccessKeyId", Code.UNAUTHENTICATED),
        (401, "", Code.UNAUTHENTICATED),
        (400, "AuthorizationHeaderMalformed", Code.INVALID),
        (404, "NoSuchBucket", Code.NOT_FOUND),
        (404, "", Code.NOT_FOUND),
        (429, "", Code.BUSY),
        (500, "InternalError", Code.BUSY),
        (503, "SlowDown", Code.BUSY),
    ],
)
def test_refusals_of_the_store(make_job: Make, status: int, told: str, code: Code) -> None:
    body = f"<Error><Code>{told}</Code><Message>string to sign: {SIGNATURE}</Message></Error>".encode()
    with scripted(Told(status), Told(status, body if told else b"")) as server:
        error = refusal(job_at(make_job, server))
    assert error.code is code
    assert told in error.message or code is Code.NOT_FOUND


def test_a_store_that_is_silent_or_gone(make_job: Make) -> None:
    with scripted(GOOD) as server:
        pass
    assert refusal(job_at(make_job, server)).code is Code.BUSY


def test_hosts_must_be_listed(make_job: Make) -> None:
    error = refusal(make_job(url=URL, secret={"region": "eu-west-1"}))
    assert error.code is Code.FORBIDDEN
    assert "s3.eu-west-1.amazonaws.com" in error.message
    assert "source_hosts" in error.hint
    assert "storage.googleapis.com" in refusal(make_job(url="gs://shop/a.csv")).message
    azure = {"account_name": "acct"}
    assert "acct.blob.core.windows.net" in refusal(make_job(url="az://shop/a.csv", secret=azure)).message
    app = azure | {"tenant_id": "t", "client_id": "c", "client_secret": SIGNATURE}
    assert "login.microsoftonline.com" in refusal(make_job(url="az://shop/a.csv", secret=app)).message
    unresolved = Policy(hosts=("10.0.0.0/8",))  # a host may pass by its addresses: this one has none here
    assert refusal(make_job(url="gs://shop/a.csv", policy=unresolved)).code is Code.FORBIDDEN
    with scripted(GOOD) as server:
        refused = Policy(hosts=("*",))
        assert refusal(job_at(make_job, server, policy=refused)).code is Code.FORBIDDEN
        assert server.asked == []


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("s3://b/a.csv", {"access_key_id": SIGNATURE}),
        ("s3://b/a.csv", {"region": "x.evil.example/"}),
        ("s3://b/a.csv", {"endpoint": "ftp://a"}),
        ("s3://b/a.csv", {"endpoint": f"https://u:{SIGNATURE}@a"}),
        ("gs://b/a.csv", {"service_account_key": SIGNATURE}),
        ("gs://b/a.csv", {"service_account_key": json.dumps({"private_key": SIGNATURE})}),
        (
            "gs://b/a.csv",
            {
                "service_account_key": json.dumps(
                    dict.fromkeys(("client_email", "private_key", "private_key_id"), SIGNATURE)
                )
            },
        ),
        ("az://b/a.csv", {}),
        ("az://b/a.csv", {"account_name": "a.evil.example/"}),
        ("az://b/a.csv", {"account_name": "acct", "account_key": SIGNATURE}),
        ("az://b/a.csv", {"account_name": "acct", "client_secret": SIGNATURE}),
        ("az://b/a.csv", {"account_name": "acct", "sas_token": SIGNATURE, "endpoint": "http://10.0.0.1"}),
    ],
)
def test_credentials_that_cannot_be_used(make_job: Make, url: str, secret: dict[str, str]) -> None:
    error = refusal(make_job(url=url, secret=secret))
    assert error.code is Code.INVALID


def test_an_empty_secret_takes_nothing_from_the_environment(make_job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOOGLE_SERVICE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"):
        monkeypatch.setenv(name, "ambient")
    with scripted(GOOD) as proxy, scripted(GOOD) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        for scheme in ("s3", "gs", "az"):
            secret = {"endpoint": server.url, "account_name": "acct"}
            assert read(make_job(url=f"{scheme}://shop/a.csv", secret=secret)) is not None
        assert proxy.asked == []
        assert all("authorization" not in headers and "?" not in path for _, path, headers, _ in server.asked)


def signed(url: str, secret: dict[str, str]) -> tuple[str, dict[str, str]]:
    address = access_of(parse_place(url), secret).address("GET")
    return address, {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


def test_s3_signatures_are_those_of_the_official_library() -> None:
    secret = {"access_key_id": "AK", "secret_access_key": SIGNATURE, "session_token": "TOK+/=", "region": "eu-west-1"}
    address, query = signed("s3://shop/dir/a b+é.csv", secret)
    auth = S3SigV4QueryAuth(Credentials("AK", SIGNATURE, "TOK+/="), "s3", "eu-west-1", int(query["X-Amz-Expires"]))
    request = AWSRequest("GET", address.replace(f"&X-Amz-Signature={query['X-Amz-Signature']}", ""))
    request.headers["host"] = urlsplit(address).netloc
    request.context["timestamp"] = query["X-Amz-Date"]
    canonical = auth.canonical_request(request)
    assert auth.signature(auth.string_to_sign(request, canonical), request) == query["X-Amz-Signature"]
    assert urlsplit(address).netloc == "s3.eu-west-1.amazonaws.com"


def test_google_signatures_hold_under_the_public_key() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {
        "type": "service_account",
        "client_email": "reader@project.iam.gserviceaccount.com",
        "private_key": pem,
        "private_key_id": "1",
        "gcs_base_url": "http://169.254.169.254",
        "disable_oauth": True,
    }
    address, query = signed("gs://shop/dir/a b.csv", {"service_account_key": json.dumps(account)})
    parts = urlsplit(address)
    assert parts.netloc == "storage.googleapis.com"
    unsigned = parts.query.rpartition("&X-Goog-Signature=")[0]
    canonical = f"GET\n{parts.path}\n{unsigned}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashes.Hash(hashes.SHA256())
    digest.update(canonical.encode())
    scope = unquote(query["X-Goog-Credential"]).partition("/")[2]
    text = f"GOOG4-RSA-SHA256\n{query['X-Goog-Date']}\n{scope}\n{digest.finalize().hex()}"
    signature = bytes.fromhex(query["X-Goog-Signature"])
    key.public_key().verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())


def test_azure_is_asked_with_what_the_secret_holds(make_job: Make) -> None:
    with scripted(GOOD) as server:
        secret = {"account_name": "acct", "endpoint": f"{server.url}/acct"}
        read(make_job(url="az://shop/a b.csv", secret=secret | {"sas_token": "?sv=1&sig=abc%2B"}))
        key = base64.b64encode(b"k" * 32).decode()
        read(make_job(url="az://shop/a b.csv", secret=secret | {"account_key": key}))
    paths = [path for _, path, _, _ in server.asked]
    assert paths[0] == "/acct/shop/a%20b.csv?sv=1&sig=abc%2B"
    assert "sig=" in paths[2]
    assert key not in paths[2]


AZURITE = os.environ.get("ROSTER_TEST_AZURITE", "")


def account_sas() -> str:
    """A token for everything in the account, as Azure's documentation says to make it."""
    words = {"sv": "2020-12-06", "ss": "b", "srt": "sco", "sp": "rwdlac", "se": "2099-01-01T00:00:00Z"}
    lines = [ACCOUNT, words["sp"], words["ss"], words["srt"], "", words["se"], "", "", words["sv"], "", ""]
    signature = hmac.new(base64.b64decode(AZURE_KEY), "\n".join(lines).encode(), hashlib.sha256).digest()
    return urlencode(words | {"sig": base64.b64encode(signature).decode()})


@pytest.mark.skipif(not AZURITE, reason="ROSTER_TEST_AZURITE is not the command that starts Azurite's blob server")
def test_an_azure_blob_is_read(tmp_path: Path, make_job: Make) -> None:
    with azure_store(AZURITE, tmp_path) as port:
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        with httpx2.Client(base_url=endpoint, trust_env=False) as client:
            assert client.put(f"/shop?restype=container&{account_sas()}").status_code == 201
            blob = {"x-ms-blob-type": "BlockBlob"}
            assert client.put(f"/shop/a%20b.csv?{account_sas()}", content=ROWS, headers=blob).status_code == 201
        named = {"account_name": ACCOUNT, "endpoint": endpoint}
        for secret in (named | {"account_key": AZURE_KEY}, named | {"sas_token": account_sas()}):
            first = read(make_job(url="az://shop/a b.csv", secret=secret))
            assert first is not None
            assert first.bytes == len(ROWS)
            assert read(make_job(url="az://shop/a b.csv", secret=secret, fingerprint=first.fingerprint)) is None
            assert refusal(make_job(url="az://shop/b.csv", secret=secret)).code is Code.NOT_FOUND
            assert refusal(make_job(url="az://nowhere/b.csv", secret=secret)).message == "there is no bucket 'nowhere'"
        wrong = named | {"account_key": base64.b64encode(b"w" * 32).decode()}
        assert refusal(make_job(url="az://shop/a b.csv", secret=wrong)).code is Code.UNAUTHENTICATED
