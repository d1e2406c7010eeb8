"""How bodies of events may be packed, and that neither bombs nor broken ones get through."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import pytest
import zstandard

from http_senders import (
    PACKERS,
    RUM,
    accepted,
    action,
    arrived,
    forward,
    new_token,
    open_to_pages,
    refused,
    send,
    sync_flushed,
)
from servers import Server

pytestmark = pytest.mark.xdist_group("intake_packing")

BODY_BYTES = 20_000
ENCODING = {name: name.partition(" ")[0] for name in PACKERS}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Small bodies, and events that stay in the synced log."""
    folder = tmp_path_factory.mktemp("packing")
    with Server(folder, apply_interval_s="3600", event_body_bytes_max=str(BODY_BYTES)) as running:
        yield running


@pytest.fixture(scope="module")
def token(server: Server) -> str:
    return new_token(server)


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("inner", [False, True], ids=["once", "twice"])
def test_packed_bodies(server: Server, token: str, name: str, inner: bool) -> None:
    plain = action(f"{name} {inner}")
    path = f"{RUM}?dd-api-key={token}" + ("&dd-evp-encoding=deflate" if inner else "")
    body = PACKERS[name](sync_flushed(plain) if inner else plain)
    accepted(send(server, path, body, Content_Encoding=ENCODING[name]))
    assert arrived(server, f"{name} {inner}")


def test_an_sdk_says_in_the_query_what_it_packed(server: Server, token: str) -> None:
    path = forward(f"{RUM}?dd-api-key={token}&dd-evp-encoding=deflate")
    accepted(send(server, path, sync_flushed(action("first") + b"\n" + action("second")), Content_Type="text/plain"))
    assert arrived(server, "first")
    assert arrived(server, "second")
    accepted(send(server, path, b""))


BOMB = b" " * 50_000_000


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("path", [RUM, "/api/v2/prodlytics"])
def test_bombs(server: Server, token: str, name: str, path: str) -> None:
    encoding = ENCODING[name]
    refused(send(server, path, PACKERS[name](BOMB)[:BODY_BYTES], Content_Encoding=encoding, DD_API_KEY=token), 413)
    nested = PACKERS[name](zlib.compress(BOMB))
    query = "?dd-evp-encoding=deflate"
    refused(send(server, path + query, nested, Content_Encoding=encoding, DD_API_KEY=token), 413)
    twice = PACKERS[name](PACKERS[name](BOMB))
    answer = open_to_pages(send(server, path, twice, Content_Encoding=encoding, DD_API_KEY=token))
    assert answer.status in (202, 400, 413), "what is inside is not unpacked, so it is no event"


def test_a_zstd_frame_without_a_size_that_asks_for_a_huge_window(server: Server, token: str) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = packer.compress(action("window")) + packer.flush()
    refused(send(server, RUM, body, Content_Encoding="zstd", DD_API_KEY=token), 400)


@pytest.mark.parametrize("name", PACKERS)
def test_broken_packing(server: Server, token: str, name: str) -> None:
    whole = PACKERS[name](action("broken"))
    for body in (whole[:-3], whole[: len(whole) // 2], whole[:1], whole + b"more", b"\x00" + whole, action("plain")):
        refused(send(server, RUM, body, Content_Encoding=ENCODING[name], DD_API_KEY=token), 400)
    assert not arrived(server, "broken")


def test_unknown_packing(server: Server, token: str) -> None:
    for encoding in ("br", "gzip, gzip", "x" * 5000):
        refused(send(server, RUM, action("x"), Content_Encoding=encoding, DD_API_KEY=token), 400)
    for encoding in ("gzip", "zlib", "%00"):
        path = f"{RUM}?dd-evp-encoding={encoding}"
        refused(send(server, path, action("x"), DD_API_KEY=token), 400)
    for body in (action("x"), gzip.compress(action("x")), sync_flushed(action("x"))[:-1], sync_flushed(b"") + b"x"):
        refused(send(server, f"{RUM}?dd-evp-encoding=deflate", body, DD_API_KEY=token), 400)
