"""Secrets over HTTP and by command: they go in, nothing of them comes out, and what is in use stays."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roster.base.errors import EXIT_STATUS, Code
from roster.main import open_records
from roster.model.reference_table import Table
from roster.model.schema import Column, Type
from roster.model.source import Origin
from roster.model.sync import Failure, Phase, Run, State, Step, Sync, Trigger
from roster.operations.secrets import MEMBER_NAMES
from roster.settings import Settings
from servers import Answered, Server

pytestmark = pytest.mark.xdist_group("secrets")

PATH = "/api/roster/secrets"
CONNECTION = "/api/v2/product-analytics/users/mapping/connection"
HIDDEN = "correct-horse-battery"
"""No answer, log or file may have this."""
TABLE = Table(
    id="00000000-0000-0000-0000-000000000001",
    name="orders",
    columns=(Column("id", Type.STRING),),
    primary_key="id",
    source="S3",
    description="",
    tags=(),
    row_count=0,
    created_by="ann",
    updated_by="ann",
    created_ms=1,
    updated_ms=1,
    origin=Origin("file", (("secret", "aws-1"), ("url", "s3://bucket/key"))),
)


def put(server: Server, name: str, members: Any, **more: Any) -> Answered:
    attributes = {"members": members, **more}
    return server.ask("PUT", f"{PATH}/{name}", {"data": {"type": "secret", "attributes": attributes}})


def listed(server: Server) -> dict[str, dict[str, Any]]:
    answer = server.ask("GET", PATH)
    assert answer.status == 200
    assert HIDDEN not in answer.body.decode()
    return {secret["id"]: secret["attributes"] for secret in answer.json()["data"]}


def settings(server: Server) -> Settings:
    return Settings(data=server.folder / "data")


def members_of(server: Server, name: str) -> dict[str, str]:
    """What a sync would be given."""
    with open_records(settings(server)) as records:
        kept = records.store.find_secret(name)
        assert kept is not None
        return records.vault.open(name, kept.sealed)


def test_a_secret_goes_in_and_shows_names_only(server: Server) -> None:
    answer = put(server, "crm", {"user": "reader", "password": HIDDEN})
    assert (answer.status, answer.body) == (200, b"")
    shown = listed(server)["crm"]
    assert set(shown) == {"name", "members", "created_at", "updated_at", "updated_by"}
    assert (shown["name"], shown["members"]) == ("crm", ["password", "user"])
    assert shown["created_at"] == shown["updated_at"]
    assert members_of(server, "crm") == {"user": "reader", "password": HIDDEN}


def test_it_is_replaced_whole(server: Server) -> None:
    put(server, "replaced", {"user": "reader", "password": HIDDEN})
    before = listed(server)["replaced"]
    assert put(server, "replaced", {"token": HIDDEN}).status == 200
    after = listed(server)["replaced"]
    assert (after["members"], after["created_at"]) == (["token"], before["created_at"])
    assert members_of(server, "replaced") == {"token": HIDDEN}


def test_nothing_in_the_data_folder_or_the_log_has_a_value(server: Server) -> None:
    put(server, "everywhere", {"password": HIDDEN})
    put(server, "everywhere", {"password": HIDDEN, "passwort": HIDDEN})
    put(server, "bad%20name", {"password": HIDDEN})
    for path in [p for p in server.folder.rglob("*") if p.is_file()]:
        assert HIDDEN.encode() not in path.read_bytes(), path
    with open_records(settings(server)) as records:
        entries = records.store.list_audit(1000)  # type: ignore[attr-defined]
    told = [(e.action, e.target, e.detail) for e in entries if e.target == "everywhere"]
    assert told == [("secret.added", "everywhere", {"members": ["password"]})]


@pytest.mark.parametrize(
    ("name", "members", "said"),
    [
        ("a%20b", {"password": HIDDEN}, "cannot be the name"),
        ("x" * 101, {"password": HIDDEN}, "cannot be the name"),
        ("..%2Fx", {"password": HIDDEN}, "cannot be the name"),
        ("x", {}, "at least 1"),
        ("x", dict.fromkeys([f"m{i}" for i in range(21)], HIDDEN), "at most 20"),
        ("x", {"passwort": HIDDEN}, "did you mean 'password'?"),
        ("x", {"wholly/other~": HIDDEN}, "known: "),
        ("x", {"password": ""}, "is empty"),
        ("x", {"password": "x" * 65_537}, "65537 bytes"),
        ("x", {"password": "é" * 32_769}, "65538 bytes"),
        ("x", {"password": 5}, "valid string"),
        ("x", {"password": None}, "valid string"),
        ("x", [HIDDEN], "an object"),
        ("x", HIDDEN, "an object"),
    ],
)
def test_a_wrong_secret_is_refused_without_its_values(server: Server, name: str, members: Any, said: str) -> None:
    answer = put(server, name, members)
    assert answer.status == 400
    assert said in answer.json()["errors"][0]
    assert HIDDEN not in answer.body.decode()
    assert "x" not in listed(server)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"data":{"type":"secret","attributes":{"members":{"password":"' + HIDDEN.encode() + b'"}}',
        b'{"data":{"type":"secret","attributes":{"members":{"password":"' + HIDDEN.encode() + b'\\ud800"}}}}',
        json.dumps({"data": {"type": "key", "attributes": {"members": {"password": HIDDEN}}}}).encode(),
        json.dumps({"data": {"type": "secret", "attributes": {"password": HIDDEN}}}).encode(),
    ],
)
def test_a_wrong_body_is_refused_without_repeating_it(server: Server, body: bytes) -> None:
    answer = server.ask("PUT", f"{PATH}/x", body)
    assert answer.status == 400
    assert HIDDEN not in answer.body.decode()


def test_the_largest_secret_is_kept(server: Server) -> None:
    members = dict.fromkeys(MEMBER_NAMES[:20], "é" * 8_000)
    assert put(server, "Large_1.x-" + "y" * 90, members).status == 200
    assert put(server, "widest", {"private_key": "x" * 65_536}).status == 200


def test_it_takes_both_keys(server: Server) -> None:
    for verb, path in (("GET", PATH), ("PUT", f"{PATH}/x"), ("DELETE", f"{PATH}/x")):
        assert server.ask(verb, path, keys=False).status == 401
        answer = server.ask(verb, path, keys=False, headers={"DD-API-KEY": server.api_key})
        assert answer.status == 401


def test_an_unused_secret_is_deleted(server: Server) -> None:
    put(server, "unused", {"token": HIDDEN})
    answer = server.ask("DELETE", f"{PATH}/unused")
    assert (answer.status, answer.body) == (204, b"")
    assert "unused" not in listed(server)
    again = server.ask("DELETE", f"{PATH}/unused")
    assert again.status == 404
    put(server, "unusual", {"token": HIDDEN})
    assert "did you mean 'unusual'" in server.ask("DELETE", f"{PATH}/unused").json()["errors"][0]


def test_a_secret_in_use_stays(tmp_path: Path) -> None:
    with Server(tmp_path, source_hosts='["127.0.0.1"]', source_loopback="true") as server:
        check_use(server)


def check_use(server: Server) -> None:
    for name in ("crm-reader", "aws-1", "other"):
        assert put(server, name, {"user": "reader", "password": HIDDEN}).status == 200
    metadata = {"host": "127.0.0.1", "port": "9", "database": "crm", "table": "people", "secret": "crm-reader"}
    attributes = {"type": "postgres", "join_type": "email", "join_attribute": "email", "metadata": metadata}
    body = {"data": {"type": "connection_id", "id": "crm", "attributes": attributes}}
    with open_records(settings(server)) as records:
        records.store.add_table(TABLE, who="ann")
    assert server.ask("POST", CONNECTION, body).status == 201
    used = {"aws-1": "orders", "crm-reader": "users/crm"}
    for name, user in used.items():
        answer = server.ask("DELETE", f"{PATH}/{name}")
        assert answer.status == 409
        assert user in answer.json()["errors"][0]
        assert name in listed(server)
        done = server.run_cli("secret", "remove", name)
        assert done.returncode == EXIT_STATUS[Code.CONFLICT]
        assert user in done.stderr
    assert server.ask("DELETE", f"{PATH}/other").status == 204


# by command


def command(server: Server, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "roster", "secret", *words]
    return subprocess.run(
        line, env=server.env, input=given or "", capture_output=True, text=True, cwd=server.folder, timeout=120
    )


def test_a_command_reads_lines_and_files(server: Server, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text("-----BEGIN KEY-----\nMII\n-----END KEY-----\n")
    given = f"reader\n {HIDDEN} \r\n"
    done = command(server, "set", "by-command", "user=-", "password=-", f"private_key=@{key}", given=given)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "kept by-command: password, private_key, user\n"
    assert members_of(server, "by-command") == {
        "user": "reader",
        "password": f" {HIDDEN} ",
        "private_key": "-----BEGIN KEY-----\nMII\n-----END KEY-----",
    }
    assert listed(server)["by-command"]["updated_by"] == "00000000-0000-0000-0000-000000000000"


def test_a_command_reads_an_object(server: Server) -> None:
    done = command(server, "set", "by-object", given=json.dumps({"token": HIDDEN}))
    assert done.returncode == 0, done.stderr
    assert members_of(server, "by-object") == {"token": HIDDEN}


def test_a_command_asks_without_showing(server: Server) -> None:
    """On a terminal, whose echo would show what is typed."""
    line = [sys.executable, "-m", "roster", "secret", "set", "typed", "password=-"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        line, env=server.env, stdin=theirs, stdout=theirs, stderr=theirs, cwd=server.folder, start_new_session=True
    ) as asking:
        os.close(theirs)
        shown = read_terminal(ours, until=b"password: ")
        os.write(ours, HIDDEN.encode() + b"\n")
        shown += read_terminal(ours)
        assert asking.wait(60) == 0, shown
    os.close(ours)
    assert b"kept typed: password" in shown
    assert HIDDEN.encode() not in shown
    assert members_of(server, "typed") == {"password": HIDDEN}


def read_terminal(terminal: int, until: bytes | None = None) -> bytes:
    """What is shown, up to some text or to the end."""
    shown = b""
    while until is None or until not in shown:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, shown
        try:
            part = os.read(terminal, 4096)
        except OSError:  # how Linux tells the end of a terminal
            return shown
        if not part:
            return shown
        shown += part
    return shown


@pytest.mark.parametrize(
    ("words", "given", "said"),
    [
        ((f"password={HIDDEN}",), "", "'password' stands on the command line"),
        (("passwort=-",), HIDDEN, "did you mean 'password'?"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(server: Server, words: tuple[str, ...], given: str, said: str) -> None:
    done = command(server, "set", "refused", *words, given=given)
    assert done.returncode == EXIT_STATUS[Code.INVALID]
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert HIDDEN not in done.stdout + done.stderr
    assert "refused" not in listed(server)


def test_commands_list_and_remove(server: Server) -> None:
    command(server, "set", "removable", given=json.dumps({"token": HIDDEN}))
    shown = command(server, "list").stdout
    assert "removable" in shown
    assert "token" in shown
    assert HIDDEN not in shown
    assert command(server, "remove", "removable").stdout == "removed removable\n"
    done = command(server, "remove", "removable")
    assert done.returncode == EXIT_STATUS[Code.NOT_FOUND]


def test_a_new_password_has_failing_sources_synced(tmp_path: Path) -> None:
    """The command leaves a run for the server to find; only for sources that failed, and that name the secret."""
    server = Server(tmp_path)
    with open_records(settings(server)) as records:
        stands = [(State.FAILING, "aws-1"), (State.OK, "aws-1"), (State.FAILING, "aws-2")]
        for number, (state, secret) in enumerate(stands):
            origin = Origin("file", (("secret", secret), ("url", "s3://bucket/key")))
            table = replace(TABLE, id=f"{TABLE.id[:-1]}{number}", name=f"t{number}", origin=origin)
            failure = Failure("forbidden", "wrong key")
            run = Run(f"r{number}", table.id, Trigger.CREATED, Phase.FAILED, Step.READ, 1, 1, failure=failure)
            records.store.add_table(table, who="ann")
            records.store.write_run(run)
            records.store.write_sync(Sync(table.id, state, 1, run_id=run.id))
    assert command(server, "set", "aws-1", given=json.dumps({"access_key_id": HIDDEN})).returncode == 0
    with open_records(settings(server)) as records:
        (queued,) = records.store.unfinished_runs()
    assert (queued.table_id[-1], queued.trigger, queued.phase) == ("0", Trigger.MANUAL, Phase.QUEUED)
