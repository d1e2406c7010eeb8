"""Owns HTTP to outside sources: connects to the addresses that the policy gave, follows nothing; knows no store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from roster.base.errors import Code, Error
from roster.sources.policy import Policy

CONNECT_TIMEOUT_S = 10.0


class PolicyTransport(httpx2.BaseTransport):
    """Resolves every host by the policy and connects to that very address; TLS still proves the name."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._inner = httpx2.HTTPTransport(verify=httpx2.create_ssl_context(), trust_env=False)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer of the first address that can be connected to. Errors: as `Policy.resolve`, and httpx2's."""
        host = request.url.raw_host.decode("ascii")
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        *others, last = self._policy.resolve(host, port)
        request.extensions = {**request.extensions, "sni_hostname": host}
        named = request.url
        for address in others:
            try:
                return self._send(request, named.copy_with(host=address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return self._send(request, named.copy_with(host=last))

    def _send(self, request: httpx2.Request, url: httpx2.URL) -> httpx2.Response:
        request.url = url
        return self._inner.handle_request(request)

    def close(self) -> None:
        """Let go of all connections."""
        self._inner.close()


@contextmanager
def open_client(policy: Policy, silence_s: float) -> Iterator[httpx2.Client]:
    """A client for one read. Within it, trouble of the network comes out as BUSY."""
    timeout = httpx2.Timeout(silence_s, connect=min(silence_s, CONNECT_TIMEOUT_S))
    transport = PolicyTransport(policy)
    with httpx2.Client(transport=transport, timeout=timeout, follow_redirects=False, trust_env=False) as client:
        try:
            yield client
        except httpx2.TimeoutException as error:
            hint = f"at most {timeout.read:g} s (source_silence_s)"
            raise Error(Code.BUSY, "the source has sent nothing for too long", hint=hint) from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise Error(Code.BUSY, f"the source cannot be reached: {_reason(error)}") from error
        except httpx2.InvalidURL as error:
            raise Error(Code.INVALID, "the source's address is no address") from error


def _reason(error: Exception) -> str:
    """What went wrong, without addresses: they may be signed."""
    text = str(error)
    return type(error).__name__ if not text or "://" in text else text
