"""Owns a proxy on loopback for libraries that connect by themselves: it lets them out to allowed hosts only.

Every connection they make, for a redirect too, names its host here first; the addresses that the policy gives
are connected to and no others. A process of its own: a library may hold the interpreter while it reads.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from secrets import token_urlsafe
from urllib.parse import urlsplit

import msgspec

from roster.base.errors import Code, Error
from roster.sources.policy import Policy

CONNECT_TIMEOUT_S = 10.0
HEAD_BYTES_MAX = 2**16
HOST_MAX = 253
_CHUNK = 2**16
_VARIABLE = "https_proxy"
_PROOF = b"proxy-authorization: basic "
_OWN = (b"proxy-", b"connection:", b"keep-alive:")
"""Headers between the library and this proxy."""


class Settings(msgspec.Struct):
    """What a relay is told on its standard input; the word proves that it is our library that asks."""

    word: str
    hosts: tuple[str, ...]
    loopback: bool


@contextmanager
def relay(policy: Policy) -> Iterator[str]:
    """The address of a proxy under this policy, for as long as the block runs; in the environment too.

    Libraries that can be told a proxy must be told: those for Azure take it from the environment alone.
    Error: FORBIDDEN when the block fails after a library asked for a host that is not allowed.
    """
    settings = Settings(token_urlsafe(24), policy.hosts, policy.loopback)
    command = [sys.executable, "-P", "-m", __name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        try:
            process.stdin.write(msgspec.json.encode(settings) + b"\n")
            process.stdin.flush()
            if not (port := process.stdout.readline().decode().strip()):
                raise Error(Code.BUSY, "the proxy of the reading process did not start")
            address = f"http://roster:{settings.word}@127.0.0.1:{port}"
            os.environ[_VARIABLE] = address
            yield address
        except Exception as error:
            process.kill()
            if refused := process.stdout.read().decode().split("\n")[0]:
                raise Error(Code.FORBIDDEN, f"the source leads to {refused!r}, which is not allowed") from error
            raise
        finally:
            os.environ.pop(_VARIABLE, None)
            process.kill()


async def _serve(settings: Settings) -> None:
    """Tell the port and then the first host that was refused; serve until standard input ends: the reader has."""
    policy = Policy(settings.hosts, (), settings.loopback)
    proof = _PROOF + base64.b64encode(f"roster:{settings.word}".encode())

    refused: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            if host := await _answer(policy, proof, reader, writer):
                refused.append(host)
                if len(refused) == 1:
                    _tell(host[:HOST_MAX])
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)
    _tell(server.sockets[0].getsockname()[1])
    await asyncio.to_thread(sys.stdin.read)
    server.close()


async def _answer(policy: Policy, proof: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Gives the host when it is not allowed, else nothing. A library that follows a redirect in the clear does not
    prove itself again, so that is refused as what anybody sends.
    """
    line, *headers = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    verb, asked, version = line.split(b" ")
    tunnels = verb == b"CONNECT"
    parts = urlsplit(f"//{asked.decode()}" if tunnels else asked.decode())
    proven = any(hmac.compare_digest(_lowered(header), proof) for header in headers)
    if not proven or not parts.hostname or not (tunnels or parts.scheme == "http"):
        writer.write(_refusal(b"403 Forbidden"))
        return ""
    try:
        source, target = await _connect(policy, parts.hostname, parts.port or 80)
    except Error as error:
        busy = error.code is Code.BUSY
        writer.write(_refusal(b"502 Bad Gateway" if busy else b"403 Forbidden"))
        return "" if busy else parts.hostname
    if tunnels:
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    else:
        place = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        kept = [header for header in headers if not header.lower().startswith(_OWN)]
        # one request a connection: the next one may be for another host
        head = [b" ".join((verb, place.encode(), version)), *kept, b"connection: close", b"", b""]
        target.write(b"\r\n".join(head))
    await asyncio.gather(_pass(reader, target), _pass(source, writer))
    target.close()
    return ""


def _refusal(status: bytes) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n"


def _tell(what: object) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def _lowered(header: bytes) -> bytes:
    return header[: len(_PROOF)].lower() + header[len(_PROOF) :]


async def _connect(policy: Policy, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to an address of an allowed host. Errors: as `Policy.resolve`; BUSY when none can be reached."""
    for address in await asyncio.to_thread(policy.resolve, host, port):
        with suppress(OSError, TimeoutError):
            return await asyncio.wait_for(asyncio.open_connection(address, port), CONNECT_TIMEOUT_S)
    raise Error(Code.BUSY, f"{host} cannot be reached")


async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Everything from one side to the other, and that it has ended."""
    try:
        while chunk := await source.read(_CHUNK):
            target.write(chunk)
            await target.drain()
        target.write_eof()
    except OSError:
        target.close()


if __name__ == "__main__":
    asyncio.run(_serve(msgspec.json.decode(sys.stdin.readline(), type=Settings)))
