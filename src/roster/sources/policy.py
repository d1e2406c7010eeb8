"""Owns what sources may reach: hosts by the allow-list, files by the allowed folders; connects to nothing."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

import idna

from roster.base.errors import Code, Error

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

REFUSED: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "192.0.0.0/24",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "240.0.0.0/4",
        "fe80::/10",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
    )
)
"""Never a source, whatever is allowed: this network, link-local, clouds' metadata services, reserved."""
_NAT64 = ip_network("64:ff9b::/96")
_NAT64_LOCAL = ip_network("64:ff9b:1::/48")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_HOSTS_HINT = "add it to source_hosts"
_FOLDERS_HINT = "add its folder to source_folders"


@dataclass(frozen=True, slots=True)
class Policy:
    """Hosts and folders that sources may be read from.

    `hosts`: names, `*.suffix` (any name below it), addresses, networks, or `*`; none: no host at all. A host
    passes by its name, or when all its addresses are listed. `loopback`: whether a listed host may be on
    loopback. `folders`: real files below them may be read.
    """

    hosts: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    loopback: bool = False

    def check_host(self, host: str) -> None:
        """Whether a host may be connected to, as far as can be told without asking DNS. Errors: as `resolve`."""
        found = parse_host(host)
        if isinstance(found, str):
            if not self._listed_name(found) and not self._networks():
                raise _unlisted(found)
        else:
            self._check_address(found, shown=str(found), listed=self._listed_name(str(found)))

    def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a host: connect to these and to nothing else.

        DNS is asked once and every answer is checked. Errors: INVALID (no host name), FORBIDDEN (not allowed
        here), BUSY (the name has no address now).
        """
        self.check_host(host)
        found = parse_host(host)
        if not isinstance(found, str):
            return [str(found)]
        listed = self._listed_name(found)
        addresses = _look_up(found, port)
        if not addresses:
            absent = Error(Code.BUSY, f"the host {found!r} has no address", hint="is the name right?")
            raise absent if listed else _unlisted(found)
        for address in addresses:
            self._check_address(address, shown=f"{found} ({address})", listed=listed)
        return [str(address) for address in addresses]

    def open_path(self, text: str) -> Path:
        """The real path of a file or folder below an allowed folder, free of symlinks.

        Errors: INVALID (not absolute), NOT_FOUND, FORBIDDEN (outside, unreadable, or no plain file or folder).
        """
        with self._held(text) as (_, real):
            if not os.access(real, os.R_OK):
                raise _unreadable(text)
            return real

    @contextmanager
    def open_file(self, text: str) -> Iterator[int]:
        """A descriptor to read a plain file below an allowed folder: the very file that was checked.

        Errors: as `open_path`, and INVALID for a folder.
        """
        with self._held(text) as (held, _):
            if stat.S_ISDIR(os.fstat(held).st_mode):
                raise Error(Code.INVALID, f"{text!r} is a folder, not a file")
            try:
                opened = os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            except OSError as error:
                raise _unreadable(text) from error
            try:
                yield opened
            finally:
                os.close(opened)

    @contextmanager
    def _held(self, text: str) -> Iterator[tuple[int, Path]]:
        """A handle on what the path names, which opens nothing (a pipe would block), and its real path."""
        self.check_path(text)
        try:
            handle = os.open(text, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Error(Code.NOT_FOUND, f"there is no {text!r}") from error
        except OSError as error:
            raise _unreadable(text) from error
        try:
            real = Path(f"/proc/self/fd/{handle}").readlink()
            kind = os.fstat(handle)
            if kind.st_nlink == 0:
                raise Error(Code.NOT_FOUND, f"there is no {text!r}")
            if not any(real.is_relative_to(folder.resolve()) for folder in self.folders):
                raise Error(Code.FORBIDDEN, f"{text!r} leads out of the allowed folders", hint=_FOLDERS_HINT)
            if not (stat.S_ISREG(kind.st_mode) or stat.S_ISDIR(kind.st_mode)):
                raise Error(Code.FORBIDDEN, f"{text!r} is neither a plain file nor a folder")
            yield handle, real
        finally:
            os.close(handle)

    def check_path(self, text: str) -> None:
        """Whether a path may be read, as far as its text tells: what is outside is not even looked at.

        Errors: INVALID (not absolute), FORBIDDEN.
        """
        if not text.startswith("/") or "\0" in text:
            raise Error(Code.INVALID, f"{text!r} is no absolute path")
        plain = Path(os.path.normpath(text))
        allowed = {form for folder in self.folders for form in (folder.absolute(), folder.resolve())}
        if not any(plain.is_relative_to(folder) for folder in allowed):
            raise Error(Code.FORBIDDEN, f"{text!r} is in no allowed folder", hint=_FOLDERS_HINT)

    def _listed_name(self, name: str) -> bool:
        for entry in self.hosts:
            plain = entry.strip().lower().rstrip(".")
            if plain == "*":
                return True
            if plain.startswith("*."):
                if name.endswith(_ascii(plain[1:])):
                    return True
            elif plain and _network(plain) is None and name == _ascii(plain):
                return True
        return False

    def _networks(self) -> list[Network]:
        return [found for entry in self.hosts if (found := _network(entry.strip())) is not None]

    def _check_address(self, address: Address, shown: str, listed: bool) -> None:
        if not listed and not any(address in network for network in self._networks()):
            raise _unlisted(shown)
        if address.is_loopback:
            if not self.loopback:
                hint = "set source_loopback to allow it"
                raise Error(Code.FORBIDDEN, f"{shown} is on this machine's loopback", hint=hint)
        elif _is_refused(address):
            hint = "link-local, metadata, multicast and reserved addresses are never allowed"
            raise Error(Code.FORBIDDEN, f"{shown} may not be a source", hint=hint)


def parse_host(host: str) -> Address | str:
    """What a host means: an address, however it is spelled, or a name in its ASCII form. Error: INVALID."""
    plain = _ascii(host.strip().lower().removeprefix("[").removesuffix("]"))
    plain = plain.removesuffix(".")
    try:
        return _unmapped(ip_address(plain))
    except ValueError:
        pass
    if re.fullmatch(r"[0-9a-fx.]+", plain):
        try:
            return IPv4Address(socket.inet_aton(plain))  # 127.1, 0x7f000001 and 2130706433, as resolvers read them
        except OSError:
            pass
    if len(plain) > 253 or _NAME.fullmatch(plain) is None:
        raise Error(Code.INVALID, f"{host!r} is no host name or address")
    return plain


def _ascii(name: str) -> str:
    """A name as DNS is asked for it; what cannot be one comes back as it is."""
    if name.isascii():
        return name
    try:
        dot = "." if name.startswith(".") else ""
        return dot + idna.encode(name.removeprefix("."), uts46=True).decode()
    except idna.IDNAError:
        return name


def _network(entry: str) -> Network | None:
    try:
        return ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None


def _unmapped(address: Address) -> Address:
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _is_refused(address: Address) -> bool:
    embedded = _embedded(address)
    if embedded:
        return any(one.is_loopback or _is_refused(one) for one in embedded) or address.is_link_local
    return address.is_multicast or address.is_reserved or any(address in network for network in REFUSED)


def _embedded(address: Address) -> list[IPv4Address]:
    """The IPv4 addresses that an IPv6 address leads to by NAT64, 6to4, Teredo or ISATAP."""
    if isinstance(address, IPv4Address):
        return []
    bits = int(address)
    if address in _NAT64:
        return [IPv4Address(bits & 0xFFFFFFFF)]
    if address in _NAT64_LOCAL:  # its owner chose how long the prefix is; readings that begin with 0 are of another
        around = [(bits >> 64 & 0xFFFF) << 16 | bits >> 40 & 0xFFFF, (bits >> 64 & 0xFF) << 24 | bits >> 32 & 0xFFFFFF]
        return [IPv4Address(v) for v in (*around, bits >> 24 & 0xFFFFFFFF, bits & 0xFFFFFFFF) if v >> 24]
    found = [address.sixtofour] if address.sixtofour else []
    found += list(address.teredo) if address.teredo else []
    if (bits >> 32 & 0xFDFFFFFF) == 0x5EFE:
        found.append(IPv4Address(bits & 0xFFFFFFFF))
    return found


def _look_up(name: str, port: int) -> list[Address]:
    try:
        answers = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    found: dict[Address, None] = {}
    for answer in answers:
        found[_unmapped(ip_address(answer[4][0]))] = None
    return list(found)


def _unlisted(shown: str) -> Error:
    return Error(Code.FORBIDDEN, f"the host {shown} is not allowed", hint=_HOSTS_HINT)


def _unreadable(text: str) -> Error:
    return Error(Code.FORBIDDEN, f"Roster may not read {text!r}")
