"""Starts real database servers for tests, each in a temporary folder, on loopback, with passwords."""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

START_TIMEOUT_S = 60.0
ADMIN, PASSWORD, DATABASE = "roster_admin", "s3cret'\\ pass", "shop"
HOST = "127.0.0.1"
CERTIFICATE = "certificate.pem"
PEM = serialization.Encoding.PEM
DAY = timedelta(days=1)


class Absent(Exception):
    """The server's programs are not installed."""


@dataclass
class Service:
    """A running server: `run(statements)` does what an administrator would, by the server's own client."""

    kind: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    client: list[str]
    env: dict[str, str]
    certificate: Path

    def run(self, statements: str, database: str = DATABASE) -> str:
        """Run SQL as the administrator; what the client prints, a row a line, with tabs between."""
        command = [*self.client, database]
        done = subprocess.run(
            command, input=statements, env=os.environ | self.env, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def kill(self) -> None:
        """End it at once, as a crash would."""
        _end(self.process, signal.SIGKILL)


class CutProxy:
    """Passes on a server's bytes until `after` of them have come, then breaks the connection as a network would."""

    def __init__(self, port: int, after: int) -> None:
        self._target, self._left = port, after
        self._listening = socket.create_server((HOST, 0))
        self.port = int(self._listening.getsockname()[1])
        self.was_cut = self._closing = False
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            client, _ = self._listening.accept()
            if self._closing:
                client.close()
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        target = (HOST, self._target)
        ready = selectors.DefaultSelector()
        with suppress(OSError), client, socket.create_connection(target) as server, ready:
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while all(self._forward(key, server, client) for key, _ in ready.select()):
                pass

    def _forward(self, key: selectors.SelectorKey, server: socket.socket, client: socket.socket) -> bool:
        source = key.fileobj
        assert isinstance(source, socket.socket)
        text = source.recv(2**14)
        if source is server:
            self._left -= len(text)
            if self._left < 0:
                self.was_cut = True
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
        key.data.sendall(text)
        return bool(text)

    def __enter__(self) -> CutProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True
        socket.create_connection((HOST, self.port), 1).close()
        self._thread.join(10)
        self._listening.close()


@contextmanager
def postgres(*, tls: bool = False) -> Iterator[Service]:
    """A PostgreSQL server. Error: Absent."""
    initdb, server, client = (_find(name, "/usr/lib/postgresql/*/bin") for name in ("initdb", "postgres", "psql"))
    with _folder("postgres", "nobody") as (folder, user):
        secret = folder / "password"
        secret.write_text(PASSWORD)
        _give(folder, secret)
        data, log, port = folder / "data", folder / "log", _free_port()
        rules = ["-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-sync"]
        _finish([*user, initdb, "-D", str(data), "-U", ADMIN, *rules])
        settings = {
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "64MB",
            "timezone": "America/New_York",
        }
        if tls:
            key, certificate = _certify(folder)
            settings |= {"ssl": "on", "ssl_key_file": str(key), "ssl_cert_file": str(certificate)}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        shown = [client, "-h", HOST, "-p", str(port), "-U", ADMIN, "-qAtX", "-F", "\t", "-v", "ON_ERROR_STOP=1"]
        process = _spawn([*user, server, "-D", str(data), "-p", str(port), *words], log)
        service = Service("postgres", port, process, log, shown, {"PGPASSWORD": PASSWORD}, folder / CERTIFICATE)
        with _running(service, signal.SIGINT, "postgres", f"CREATE DATABASE {DATABASE}"):
            yield service


@contextmanager
def mariadb(*, tls: bool = False) -> Iterator[Service]:
    """A MariaDB server. Error: Absent."""
    install, server, client = (_find(name, "/usr/sbin") for name in ("mariadb-install-db", "mariadbd", "mariadb"))
    with _folder("mysql", "nobody") as (folder, user):
        data, log, port = folder / "data", folder / "log", _free_port()
        rules = [f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
        _finish([*user, install, "--no-defaults", *rules])
        first = folder / "first.sql"
        quoted = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
        first.write_text(
            "ALTER USER root@localhost ACCOUNT LOCK;\n"
            f"CREATE USER {ADMIN}@'%' IDENTIFIED BY '{quoted}';\nGRANT ALL ON *.* TO {ADMIN}@'%' WITH GRANT OPTION;\n"
        )
        _give(folder, first)
        words = [
            f"--datadir={data}",
            f"--port={port}",
            f"--bind-address={HOST}",
            f"--socket={folder / 'socket'}",
            f"--init-file={first}",
            "--skip-name-resolve",
            "--sql-mode=",
            "--default-time-zone=-05:00",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=256M",
        ]
        if tls:
            key, certificate = _certify(folder)
            words += [f"--ssl-key={key}", f"--ssl-cert={certificate}"]
        shown = [client, "--no-defaults", "-h", HOST, "-P", str(port), "-u", ADMIN, "-N", "-B"]
        shown.append("--default-character-set=utf8mb4")
        process = _spawn([*user, server, "--no-defaults", *words], log)
        service = Service("mysql", port, process, log, shown, {"MYSQL_PWD": PASSWORD}, folder / CERTIFICATE)
        with _running(service, signal.SIGTERM, "mysql", f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4"):
            yield service


def _certify(folder: Path) -> tuple[Path, Path]:
    """The files of a key and of a certificate that it signed itself, for this machine's loopback address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "roster tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    made = (folder / "key.pem", folder / CERTIFICATE)
    made[0].write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, plain))
    made[1].write_bytes(certificate.public_bytes(PEM))
    for path in made:
        path.chmod(0o600)
        _give(folder, path)
    return made


def _give(folder: Path, path: Path) -> None:
    """The file belongs to whom the folder belongs."""
    owner = folder.stat()
    os.chown(path, owner.st_uid, owner.st_gid)


def _spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _find(name: str, folders: str) -> str:
    known = [str(path) for path in sorted(Path("/").glob(f"{folders[1:]}/{name}"))]
    found = shutil.which(name) or (known[-1] if known else "")
    if not found:
        raise Absent(f"{name} is not installed")
    return found


@contextmanager
def _folder(owner: str, other: str) -> Iterator[tuple[Path, list[str]]]:
    """A folder of its own, and words before a command that run it as another user: servers refuse to run as root."""
    folder = Path(tempfile.mkdtemp(prefix=f"roster-{owner}-"))
    try:
        if os.getuid() != 0:
            yield folder, []
            return
        import pwd

        known = {entry.pw_name for entry in pwd.getpwall()}
        name = owner if owner in known else other
        entry = pwd.getpwnam(name)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        yield folder, ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _finish(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _running(service: Service, ending: signal.Signals, first: str, statement: str) -> Iterator[None]:
    try:
        _wait(service, lambda: service.run(statement, first))
        yield
    finally:
        _end(service.process, ending)


def _wait(service: Service, work: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            work()
            return
        except AssertionError as error:
            if service.process.poll() is not None or time.monotonic() > deadline_s:
                raise AssertionError(f"{service.kind} did not start: {service.log.read_text()[-3000:]}") from error
            time.sleep(0.1)


def _end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    if process.poll() is not None:
        return
    process.send_signal(how)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
