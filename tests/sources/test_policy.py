"""What sources may reach: every way to spell a refused address, every way out of a folder."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from roster.base.errors import Code, Error
from roster.sources.policy import Policy, parse_host

OPEN = Policy(hosts=("*",))
LOOPBACK = [
    "127.0.0.1",
    "127.1",
    "127.0.0.53",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f000001",
    "2130706433",
    "017700000001",
    "127.0.0.1.",
    " 127.0.0.1 ",
    "localhost",
    "LOCALHOST.",
    "::1",
    "[::1]",
    "0:0:0:0:0:0:0:1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
    "127\u30020\u30020\u30021",
    "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
]
NEVER = [
    "169.254.169.254",
    "169.254.170.2",
    "0xa9fea9fe",
    "2852039166",
    "::ffff:169.254.169.254",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "0.0.0.0",
    "0",
    "0.1.2.3",
    "::",
    "224.0.0.1",
    "ff02::1",
    "240.0.0.1",
    "255.255.255.255",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::0.0.0.0",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:7f00:0:100::",
    "64:ff9b:1:ff7f:0:1::",
    "64:ff9b:1:fffe:7f:0:100:0",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:7f00:1::",
    "2001:0:808:808:0:0:80ff:fffe",
    "2001:db8::5efe:7f00:1",
    "2001:db8::200:5efe:a9fe:a9fe",
]


def refusal(policy: Policy, host: str) -> Error:
    with pytest.raises(Error) as caught:
        policy.resolve(host, 443)
    return caught.value


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_in_any_spelling_needs_its_setting(host: str) -> None:
    error = refusal(OPEN, host)
    assert error.code is Code.FORBIDDEN
    assert "source_loopback" in error.hint
    assert Policy(hosts=("*",), loopback=True).resolve(host, 443)


@pytest.mark.parametrize("host", NEVER)
def test_some_addresses_are_never_a_source(host: str) -> None:
    listed = Policy(hosts=("*", host, "0.0.0.0/0", "::/0"), loopback=True)
    assert refusal(listed, host).code is Code.FORBIDDEN


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("0x0a010203", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("8.8.8.8", "8.8.8.8"),
        ("64:ff9b::808:808", "64:ff9b::808:808"),
        ("64:ff9b:1::a01:203", "64:ff9b:1::a01:203"),
        ("2002:808:808::1", "2002:808:808::1"),
        ("2606:4700::1111", "2606:4700::1111"),
    ],
)
def test_what_is_connected_to_is_the_plain_address(host: str, address: str) -> None:
    assert OPEN.resolve(host, 443) == [address]


@pytest.mark.parametrize("host", ["", ".", "a..b", "-a.b", "a b", "a\0b", "a/b", "a@b", "user:pw@127.0.0.1", "a" * 254])
def test_what_is_no_host_is_said_to_be_none(host: str) -> None:
    assert refusal(OPEN, host).code is Code.INVALID


def test_no_host_is_allowed_unless_listed() -> None:
    error = refusal(Policy(loopback=True), "localhost")
    assert (error.code, error.hint) == (Code.FORBIDDEN, "add it to source_hosts")
    assert "localhost" in error.message
    assert refusal(Policy(hosts=("db.example.com",), loopback=True), "127.0.0.1").code is Code.FORBIDDEN


def allowed(entry: str, host: str) -> bool:
    try:
        Policy(hosts=(entry,), loopback=True).check_host(host)
    except Error as error:
        assert error.code is Code.FORBIDDEN
        return False
    return True


@pytest.mark.parametrize(
    ("entry", "host", "is_allowed"),
    [
        ("db.example.com", "DB.Example.com.", True),
        ("db.example.com", "db.example.com.evil.org", False),
        ("db.example.com", "xdb.example.com", False),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
        ("b\u00fccher.example", "xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "B\u00dcCHER.example", True),
        ("*.b\u00fccher.example", "a.b\u00fccher.example", True),
        ("my_db", "my_db", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.4", False),
        ("10.0.0.0/8", "10.200.1.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "::ffff:10.0.0.1", True),
        ("fd12::/16", "[fd12::9]", True),
        ("*", "anything.example", True),
        ("", "a", False),
    ],
)
def test_entries(entry: str, host: str, is_allowed: bool) -> None:
    assert allowed(entry, host) is is_allowed


def test_a_name_passes_by_all_its_addresses() -> None:
    assert Policy(hosts=("127.0.0.0/8", "::1"), loopback=True).resolve("localhost", 80)
    assert refusal(Policy(hosts=("10.0.0.0/8",), loopback=True), "localhost").code is Code.FORBIDDEN


def test_every_answer_of_dns_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (address, port)) for address in ("93.184.216.34", "169.254.169.254")]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    error = refusal(Policy(hosts=("rebound.example",)), "rebound.example")
    assert error.code is Code.FORBIDDEN
    assert "169.254.169.254" in error.message


def test_a_name_without_an_address_may_have_one_later() -> None:
    error = refusal(Policy(hosts=("*",)), "no-such-name.invalid")
    assert error.code is Code.BUSY
    assert "no-such-name.invalid" in error.message


def test_a_host_is_parsed_once_for_all() -> None:
    assert str(parse_host("[::FFFF:10.0.0.1]")) == "10.0.0.1"
    assert parse_host("\u2168.example") == "ix.example"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "in"
    (inside / "sub").mkdir(parents=True)
    (inside / "a.csv").write_text("id\n1\n")
    (tmp_path / "secret.csv").write_text("id\n2\n")
    (tmp_path / "in-beside").mkdir()
    (tmp_path / "in-beside" / "b.csv").write_text("id\n3\n")
    return inside


def code_of(policy: Policy, text: str) -> Code:
    with pytest.raises(Error) as caught:
        policy.open_path(text)
    with pytest.raises(Error) as again, policy.open_file(text):
        pass
    assert caught.value.code is again.value.code
    return caught.value.code


def test_a_path_in_an_allowed_folder(folder: Path) -> None:
    policy = Policy(folders=(folder,))
    assert policy.open_path(f"{folder}/sub/../a.csv") == folder / "a.csv"
    assert policy.open_path(str(folder / "sub")) == folder / "sub"
    with policy.open_file(str(folder / "a.csv")) as opened:
        assert os.read(opened, 100) == b"id\n1\n"


def test_paths_out_of_the_folder_are_refused(folder: Path) -> None:
    policy = Policy(folders=(folder,))
    (folder / "link.csv").symlink_to(folder.parent / "secret.csv")
    (folder / "up").symlink_to(folder.parent)
    (folder / "loop").symlink_to(folder / "loop")
    for text in (
        f"{folder}/../secret.csv",
        f"{folder}-beside/b.csv",
        f"{folder.parent}/secret.csv",
        f"{folder}/link.csv",
        f"{folder}/up/secret.csv",
        f"{folder}/sub/../up/secret.csv",
        f"{folder}/loop",
        f"/proc/self/root{folder}/a.csv",
        "/etc/passwd",
        "/proc/self/environ",
    ):
        assert code_of(policy, text) is Code.FORBIDDEN, text
    assert code_of(Policy(), str(folder / "a.csv")) is Code.FORBIDDEN


def test_what_is_outside_is_not_even_told_to_be_absent(folder: Path) -> None:
    policy = Policy(folders=(folder,))
    assert code_of(policy, f"{folder.parent}/absent.csv") is Code.FORBIDDEN
    assert code_of(policy, f"{folder}/absent.csv") is Code.NOT_FOUND
    assert code_of(policy, f"{folder}/a.csv/b") is Code.NOT_FOUND
    assert code_of(policy, "a.csv") is Code.INVALID
    assert code_of(policy, f"{folder}/a\0.csv") is Code.INVALID


def test_only_plain_files_and_folders(folder: Path) -> None:
    os.mkfifo(folder / "pipe.csv")  # opened to read, it would wait for ever
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(folder)
        try:
            listening.bind("socket.csv")
        finally:
            os.chdir(here)
        for name in ("pipe.csv", "socket.csv"):
            assert code_of(Policy(folders=(folder,)), f"{folder}/{name}") is Code.FORBIDDEN
    assert code_of(Policy(folders=(Path("/dev"),)), "/dev/zero") is Code.FORBIDDEN


def test_a_folder_is_no_file(folder: Path) -> None:
    with pytest.raises(Error) as caught, Policy(folders=(folder,)).open_file(str(folder / "sub")):
        pass
    assert caught.value.code is Code.INVALID


def test_an_allowed_folder_may_itself_be_a_link(folder: Path) -> None:
    (folder.parent / "alias").symlink_to(folder)
    policy = Policy(folders=(folder.parent / "alias",))
    assert policy.open_path(f"{folder.parent}/alias/a.csv") == folder / "a.csv"
    assert policy.open_path(f"{folder}/a.csv") == folder / "a.csv"


def test_the_file_that_was_checked_is_the_one_read(folder: Path) -> None:
    """Whoever may write to the folder cannot swap the file for a link between check and read."""
    path = folder / "a.csv"
    with Policy(folders=(folder,)).open_file(str(path)) as opened:
        path.unlink()
        path.symlink_to(folder.parent / "secret.csv")
        assert os.read(opened, 100) == b"id\n1\n"
