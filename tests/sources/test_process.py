"""The process that reads: what it is told, how it ends, and that nothing of it outlives the server or a cancel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from object_servers import S3Store, ScriptedStore, Told
from roster.base.errors import Code, Error
from roster.model.source import Origin
from roster.model.sync import Fetched
from roster.ports import Cancel, Reading, Wanted
from roster.sources import process, reader, wire
from roster.sources.process import ChildSources, SourceLimits
from roster.sources.scrub import scrub

PASSWORD = "p\u00e4ss wort/+%"
ROWS = b"id,tier\n1,gold\n"
WAIT_S = 60.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_bytes(ROWS)
    (tmp_path / "run").mkdir()
    return tmp_path


def limits(folder: Path, **more: Any) -> SourceLimits:
    return SourceLimits(hosts=("127.0.0.1",), folders=(folder / "in",), loopback=True, **more)


def wanted(folder: Path, secret: dict[str, str] | None = None, fingerprint: str = "", **options: str) -> Wanted:
    origin = Origin("file", tuple(sorted(options.items())))
    return Wanted(origin, secret or {}, folder / "run", fingerprint)


def await_that(holds: Callable[[], Any]) -> Any:
    end_s = time.monotonic() + WAIT_S
    while not (found := holds()):
        assert time.monotonic() < end_s
        time.sleep(0.01)
    return found


def children_of(pid: int) -> list[int]:
    """Reading processes that this one started."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(word) for listed in lists for word in read_while_there(listed).split()]
    return [child for child in found if b"roster.sources" in command_of(child)]


def command_of(pid: int) -> bytes:
    return read_while_there(Path(f"/proc/{pid}/cmdline"))


def read_while_there(file: Path) -> bytes:
    """Threads and processes end between being listed and being read."""
    try:
        return file.read_bytes()
    except OSError:
        return b""


class Held:
    """A read that waits for its source: what it ends with, and the process that waits."""

    def __init__(self, sources: ChildSources, wanted: Wanted) -> None:
        self.cancel = Cancel()
        self.readings: list[Reading] = []
        self.result: Fetched | Error | None = None
        self._thread = threading.Thread(target=self._run, args=(sources, wanted))

    def _run(self, sources: ChildSources, wanted: Wanted) -> None:
        try:
            self.result = sources.fetch(wanted, self.readings.append, self.cancel)
        except Error as error:
            self.result = error

    def start(self, server: ScriptedStore) -> int:
        before = children_of(os.getpid())
        self._thread.start()
        await_that(lambda: "GET" in server.methods())
        (pid,) = set(children_of(os.getpid())) - set(before)
        return pid

    def end(self) -> Fetched | Error | None:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        return self.result


@contextmanager
def silent_store() -> Iterator[ScriptedStore]:
    """A store that tells of its object and never gives it."""
    over = threading.Event()

    def answer(method: str, path: str) -> Told:
        if method == "GET":
            over.wait(WAIT_S)
        return Told(content=ROWS, headers={"etag": '"1"'})

    with ScriptedStore(answer) as server:
        try:
            yield server
        finally:
            over.set()


def held(folder: Path, server: ScriptedStore, **more: Any) -> Held:
    secret = server.secret | {"secret_access_key": PASSWORD}
    return Held(ChildSources(limits(folder, **more)), wanted(folder, secret, url="s3://shop/a.csv"))


def ended(pid: int) -> bool:
    return b"roster.sources" not in command_of(pid)


def test_a_file_comes_from_another_process(folder: Path) -> None:
    sources = ChildSources(limits(folder))
    first = sources.fetch(wanted(folder, path=f"{folder}/in/a.csv"), lambda reading: None, Cancel())
    assert first is not None
    assert (folder / "run" / first.names[0]).read_bytes() == ROWS
    again = wanted(folder, fingerprint=first.fingerprint, path=f"{folder}/in/a.csv")
    assert sources.fetch(again, lambda reading: None, Cancel()) is None
    with pytest.raises(Error) as caught:
        sources.fetch(wanted(folder, path=f"{folder}/in/b.csv"), lambda reading: None, Cancel())
    assert caught.value.code is Code.NOT_FOUND


def test_an_object_comes_with_progress(folder: Path, store: S3Store) -> None:
    store.put("/child")
    store.put("/child/big.csv", b"id\n" + b"1\n" * 2**20)
    seen: list[Reading] = []
    job = wanted(folder, store.secret, url="s3://child/big.csv")
    fetched = ChildSources(limits(folder)).fetch(job, seen.append, Cancel())
    assert fetched is not None
    assert fetched.bytes == 2**21 + 3
    assert {reading.bytes_total for reading in seen} == {2**21 + 3}
    assert [reading.bytes for reading in seen] == sorted(reading.bytes for reading in seen)


def test_a_cancelled_read_ends_at_once(folder: Path) -> None:
    with silent_store() as server:
        reading = held(folder, server)
        pid = reading.start(server)
        reading.cancel.cancel()
        result = reading.end()
    assert isinstance(result, Error)
    assert (result.code, result.message) == (Code.TIMEOUT, "the read was cancelled")
    assert ended(pid)


def test_a_read_cancelled_before_it_begins_starts_nothing(folder: Path) -> None:
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(Error) as caught:
        ChildSources(limits(folder)).fetch(wanted(folder, path=f"{folder}/in/a.csv"), lambda reading: None, cancel)
    assert caught.value.code is Code.TIMEOUT


def refusal(folder: Path, **more: Any) -> Error:
    """What a read of a store that never gives its object ends with; no process is left of it."""
    before = children_of(os.getpid())
    with silent_store() as server, pytest.raises(Error) as caught:
        sources = ChildSources(limits(folder, **more))
        sources.fetch(wanted(folder, server.secret, url="s3://shop/a.csv"), lambda reading: None, Cancel())
    assert children_of(os.getpid()) == before
    return caught.value


def test_a_read_has_only_so_much_time(folder: Path) -> None:
    error = refusal(folder, timeout_s=2.0)
    assert (error.code, "source_timeout_s" in error.hint) == (Code.TIMEOUT, True)


def test_a_source_may_be_silent_only_so_long(folder: Path) -> None:
    error = refusal(folder, silence_s=0.5)
    assert (error.code, "source_silence_s" in error.hint) == (Code.BUSY, True)


def test_a_driver_that_waits_for_ever_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every driver has a time limit: a process that neither works nor reports is waiting."""
    monkeypatch.setattr(process, "SILENCE_GRACE_S", -28.0)
    error = refusal(folder, silence_s=30.0)
    assert (error.code, "source_silence_s" in error.hint) == (Code.TIMEOUT, True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_is_an_error_that_says_how(folder: Path, how: signal.Signals) -> None:
    with silent_store() as server, structlog.testing.capture_logs() as logs:
        reading = held(folder, server)
        os.kill(reading.start(server), how)
        result = reading.end()
    assert isinstance(result, Error)
    assert (result.code, how.name in result.message) == (Code.BUSY, True)
    assert [entry["event"] for entry in logs] == ["a reading process had trouble"]


SERVER = """
import sys
from pathlib import Path
from roster.model.source import Origin
from roster.ports import Cancel, Wanted
from roster.sources.process import ChildSources, SourceLimits
folder, endpoint = Path(sys.argv[1]), sys.argv[2]
origin = Origin("file", (("url", "s3://shop/a.csv"),))
limits = SourceLimits(hosts=("127.0.0.1",), loopback=True)
ChildSources(limits).fetch(Wanted(origin, {"endpoint": endpoint}, folder), print, Cancel())
"""


def test_a_reader_ends_with_its_server(folder: Path) -> None:
    with silent_store() as store:
        server = subprocess.Popen([sys.executable, "-c", SERVER, str(folder / "run"), store.url])
        try:
            await_that(lambda: "GET" in store.methods())
            (pid,) = children_of(server.pid)
        finally:
            server.kill()
            server.wait()
        await_that(lambda: ended(pid))


def test_a_reader_holds_its_credentials_in_memory_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "PGPASSWORD", "HTTPS_PROXY", "ROSTER_WEBHOOK_SECRET"):
        monkeypatch.setenv(name, "ambient")
    with silent_store() as server:
        reading = held(folder, server)
        pid = reading.start(server)
        shown = command_of(pid) + Path(f"/proc/{pid}/environ").read_bytes()
        asked = server.asked[0][1]
        reading.cancel.cancel()
        reading.end()
    assert PASSWORD.encode() not in shown
    assert server.secret["access_key_id"].encode() not in shown
    assert b"ambient" not in shown
    assert "ambient" not in asked
    assert f"HOME={folder}/run".encode() in shown.split(b"\0")


def test_a_reader_stands_behind_the_server(folder: Path) -> None:
    with silent_store() as server:
        reading = held(folder, server, memory_max=64 * 2**30)
        pid = reading.start(server)
        nice = os.getpriority(os.PRIO_PROCESS, pid) - os.getpriority(os.PRIO_PROCESS, 0)
        ceilings = Path(f"/proc/{pid}/limits").read_text()
        first_to_go = Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
        group = os.getpgid(pid)
        reading.cancel.cancel()
        reading.end()
    assert nice == min(10, 19 - os.getpriority(os.PRIO_PROCESS, 0))
    assert ["Max", "core", "file", "size", "0", "0", "bytes"] in [line.split() for line in ceilings.splitlines()]
    assert str(64 * 2**30) in ceilings
    assert first_to_go == "500"
    assert group == pid


def check(folder: Path, kind: str, **options: str) -> Error | None:
    try:
        ChildSources(limits(folder)).check(Origin(kind, tuple(sorted(options.items()))))
    except Error as error:
        return error
    return None


def test_a_source_is_checked_without_connecting(folder: Path) -> None:
    assert check(folder, "file", path=f"{folder}/in/later.csv") is None
    assert check(folder, "postgres", host="127.0.0.1", database="d", table="t") is None
    outside = check(folder, "file", path="/etc/passwd")
    assert outside is not None
    assert (outside.code, outside.at) == (Code.FORBIDDEN, "/data/attributes/metadata/path")
    assert "source_folders" in outside.hint
    host = check(folder, "postgres", host="10.0.0.1", database="d", table="t")
    assert host is not None
    assert (host.code, "source_hosts" in host.hint) == (Code.FORBIDDEN, True)
    named = ChildSources(SourceLimits(hosts=("db.example.com",)))
    with pytest.raises(Error) as caught:
        named.check(Origin("hubspot", (("base_url", "https://api.example.org/x"), ("object", "contacts"))))
    assert "api.example.org" in caught.value.message


def test_a_missing_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reader.NEEDS, "delta", "no_such_library.inside")
    missing = check(folder, "delta", path=f"{folder}/in/table")
    assert missing is not None
    assert (missing.code, missing.hint) == (Code.UNSUPPORTED, "pip install 'roster[delta]'")


def request(kind: str) -> wire.Request:
    return wire.Request(
        kind=kind,
        options={},
        secret={"password": PASSWORD},
        folder="/nowhere",
        fingerprint="",
        cursor="",
        full=False,
        hosts=(),
        folders=(),
        loopback=False,
        bytes_max=1,
        silence_s=1.0,
    )


def test_a_fault_of_a_reader_is_told_by_name_and_logged_without_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_reader.py").write_text("def read(job):\n    raise ZeroDivisionError(job.secret['password'])\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(reader.READERS, "file", "broken_reader")
    failed = reader.answer_of(request("file"), lambda reading: None)
    assert isinstance(failed, wire.Failed)
    assert (failed.code, "ZeroDivisionError" in failed.message) == ("internal", True)
    said = capfd.readouterr().err
    assert "broken_reader.py" in said
    assert PASSWORD not in said + failed.message
    assert PASSWORD not in repr(request("file"))


NOISY = """
import os, sys
def read(job):
    print("hello from a library")
    os.write(1, b"and from its C code")
    raise SystemError("over")
"""
ANSWERING = "from roster.sources import reader; reader.READERS['file'] = 'noisy_reader'; reader.main()"


def test_what_a_library_prints_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "noisy_reader.py").write_text(NOISY)
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", ANSWERING], env=env, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stdin and child.stdout and child.stderr
        child.stdin.write(wire.encode(request("file")) + b"\n")
        child.stdin.flush()  # and left open: its end would be the server's
        said, answered = child.stderr.read(), child.stdout.read()
    assert isinstance(wire.decode_answer(answered), wire.Failed)
    assert b"hello from a library" in said or b"and from its C code" in said


def test_an_answer_names_files_of_its_folder_only(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "a.csv").write_bytes(ROWS)
    (tmp_path / "run" / "link.csv").symlink_to(tmp_path / "a.csv")
    for name in ("../a.csv", f"{tmp_path}/a.csv", "absent.csv", "link.csv", ".", ""):
        done = wire.Done((name,), "csv", "", "", False, None, 0, None)
        with pytest.raises(Error) as caught:
            process._fetched(done, tmp_path / "run")
        assert caught.value.code is Code.INTERNAL


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"wrong password {PASSWORD}!", "wrong password ***!"),
        ("at https://u:p%C3%A4ss%20wort%2F%2B%25@host", "at https://u:***@host"),
        ('{"password": "p\\u00e4ss wort/+%"}', '{"password": "***"}'),
        ("user shop may not", "user shop may not"),
        ("the id 7 is not 77", "the id *** is not 77"),
        ("-----END: SGVsbG8gaGVsbG8gaGVsbG8", "-----END: ***"),
        ("inner c2VjcmV0IHRleHQ=", "inner ***"),
    ],
)
def test_credentials_are_masked_in_every_form(text: str, shown: str) -> None:
    secret = {
        "user": "shop",
        "password": PASSWORD,
        "token": "7",
        "private_key": "-----BEGIN-----\nSGVsbG8gaGVsbG8gaGVsbG8\n-----END-----",
        "service_account_key": '{"private_key": "c2VjcmV0IHRleHQ=", "client_email": "a@b"}',
    }
    assert scrub(text, secret) == shown
