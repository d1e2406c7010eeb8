"""What is sealed opens for its name and under its key only, and shows nothing of what is in it."""

from __future__ import annotations

import base64
import string
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given, strategies as st

from roster.base.errors import Code, Error
from roster.ports import Vault
from roster.store.vault import AesVault

SERVER_SECRET = bytes(range(32))
MEMBERS = {"user": "reader", "password": "correct horse — батарея\n\ud800", "private_key": "-----BEGIN\n" * 900}


def counted() -> Callable[[], bytes]:
    numbers = count()
    return lambda: next(numbers).to_bytes(12, "big")


@pytest.fixture
def vault() -> Vault:
    return AesVault(SERVER_SECRET, counted())


def refused(vault: Vault, name: str, sealed: str) -> None:
    with pytest.raises(Error) as caught:
        vault.open(name, sealed)
    assert caught.value.code is Code.INTERNAL
    assert name in caught.value.message
    assert "correct horse" not in caught.value.text()


@pytest.mark.parametrize("members", [MEMBERS, {}, {"token": "x" * 65_536}])
def test_members_come_back(vault: Vault, members: dict[str, str]) -> None:
    assert vault.open("crm", vault.seal("crm", members)) == members


def test_a_later_start_opens_it(vault: Vault) -> None:
    assert AesVault(SERVER_SECRET, counted()).open("crm", vault.seal("crm", MEMBERS)) == MEMBERS


def test_sealed_text_shows_nothing(vault: Vault) -> None:
    sealed = vault.seal("crm", MEMBERS)
    raw = base64.b64decode(sealed.removeprefix("v1:"))
    for word in ("password", "correct horse", "reader", "BEGIN", "crm"):
        assert word not in sealed
        assert word.encode() not in raw
    assert vault.seal("crm", MEMBERS) != sealed, "each has a nonce of its own"


@pytest.mark.parametrize("name", ["crm2", "CRM", "", "crm "])
def test_it_opens_for_no_other_name(vault: Vault, name: str) -> None:
    refused(vault, name, vault.seal("crm", MEMBERS))


def test_it_opens_under_no_other_server_secret(vault: Vault) -> None:
    refused(AesVault(SERVER_SECRET[::-1], counted()), "crm", vault.seal("crm", MEMBERS))


@given(st.data())
def test_a_changed_text_does_not_open(data: st.DataObject) -> None:
    vault = AesVault(SERVER_SECRET, counted())
    sealed = vault.seal("crm", {"password": "correct horse"})
    at = data.draw(st.integers(0, len(sealed) - 1))
    sign = data.draw(st.sampled_from(string.ascii_letters + string.digits + "+/=:é\n"))
    changed = data.draw(st.sampled_from([sealed[:at] + sign + sealed[at + 1 :], sealed[:at], sealed + sign]))
    if changed != sealed:
        refused(vault, "crm", changed)


@pytest.mark.parametrize("sealed", ["", "v1:", "v1:AAAA", "v2:AAAA", "v1:not base64", "v1:" + "A" * 400])
def test_what_was_never_sealed_does_not_open(vault: Vault, sealed: str) -> None:
    refused(vault, "crm", sealed)


def test_a_nonce_of_another_length_is_not_taken() -> None:
    with pytest.raises(ValueError, match="12 bytes"):
        AesVault(SERVER_SECRET, lambda: b"short").seal("crm", MEMBERS)
