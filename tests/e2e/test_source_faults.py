"""What can happen to a source, done to real ones: each ends in its documented state, told everywhere, and is mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from e2e.source_world import (
    CONNECTION,
    Database,
    Link,
    Proxy,
    Receiver,
    add_users,
    check_tidied,
    check_told,
    put_secret,
    receiving,
    settings,
    until,
    values,
)
from servers import Server
from services import Absent, mariadb, postgres

pytestmark = pytest.mark.e2e

USERS = 30
BYTES_MAX = 18_000_000
ROW_BYTES = 17_000_000
"""More than a row of a file may have."""
DIGESTS = 1_600_000
"""So many in one text are more than one read may bring, packed or not."""
NUMBERS = count(1)


@dataclass(frozen=True)
class Case:
    """One table of one database, read by one connection, with a user and a proxy of their own."""

    link: Link
    database: Database
    table: str
    proxy: Proxy
    receiver: Receiver

    def run(self, statements: str) -> None:
        """SQL, in which `{t}` stands for the table."""
        self.database.run(statements.replace("{t}", self.table))

    def told(self, *states: str) -> None:
        """That the webhook was told of exactly these states, one after the other, each once."""
        wanted = list(zip(("", *states), states, strict=False))
        until(lambda: len(self.receiver.told(self.link.name)) >= len(wanted), f"the webhook to hear {wanted}")
        assert self.receiver.told(self.link.name) == wanted


@dataclass(frozen=True)
class Place:
    """The running server that all cases share, and its folder of files."""

    server: Server
    receiver: Receiver
    files: Path


def base(n: int) -> tuple[str, float]:
    """What the source says first of user `n`."""
    return f"t{n % 3}", float(n)


FIRST = {f"u{n}": base(n) for n in range(USERS)}
NOTHING = dict.fromkeys(FIRST, (None, None))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("faults")
    with receiving("shared words") as receiver:
        more = {"webhook_url": receiver.url, "webhook_secret": receiver.secret, "source_bytes_max": str(BYTES_MAX)}
        with Server(folder, **settings(folder, **more)) as server:
            add_users(server, USERS)
            yield Place(server, receiver, folder / "files")


@pytest.fixture(scope="module", params=["postgres", "mysql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    with ExitStack() as stack:
        try:
            service = stack.enter_context(postgres() if request.param == "postgres" else mariadb())
        except Absent as absent:
            pytest.skip(str(absent))
        yield Database(service)


@pytest.fixture
def case(place: Place, database: Database, request: pytest.FixtureRequest) -> Iterator[Case]:
    """A connection that has synced well; on request only, unless the test's parameter is an interval."""
    id = f"c{next(NUMBERS)}"
    table = f"people_{id}"
    database.make_table(table, USERS)
    database.make_user(f"reader_{id}", "first words", table)
    put_secret(place.server, f"db-{id}", user=f"reader_{id}", password="first words")
    with Proxy(database.service.port) as proxy:
        metadata = database.metadata(table, f"db-{id}", proxy.port) | {"every": getattr(request, "param", "off")}
        link = Link(place.server, id).connect(database.kind, metadata)
        check_told(link, "ok")
        assert link.served() == FIRST
        yield Case(link, database, table, proxy, place.receiver)
        proxy.heal()
        link.remove()


# the network and the server


@pytest.mark.parametrize("case", ["10s"], indirect=True)
def test_the_source_is_down(case: Case) -> None:
    case.proxy.refuse()
    run = case.link.sync()
    assert (run["phase"], run["failure"]["code"]) == ("failed", "busy")
    check_told(case.link, "failing", "last good sync are served")
    assert case.link.served() == FIRST
    case.run("UPDATE {t} SET score = score + 100;")
    case.proxy.listen()
    check_told(case.link, "ok")  # nobody asked
    assert case.link.served() == {u: (tier, score + 100) for u, (tier, score) in FIRST.items()}
    case.told("ok", "failing", "ok")


def test_the_network_is_cut_while_reading(case: Case) -> None:
    case.run("ALTER TABLE {t} ADD COLUMN note text; UPDATE {t} SET note = repeat('x', 10000), score = 1;")
    case.proxy.limit = 100_000
    id = case.link.begin()
    assert case.proxy.met.wait(60)
    check_told(case.link, "failing", "last good sync are served")
    assert case.link.served() == FIRST
    case.proxy.heal()
    check_told(case.link, "ok")  # a retry, which nobody asked for
    runs = case.link.runs()
    assert (runs[0]["trigger"], runs[0]["phase"], runs[0]["rows"]["stored"]) == ("retry", "done", USERS)
    assert runs[0]["attempt"] > 1
    (first,) = [run for run in runs if run["id"] == id]
    assert (first["phase"], first["failure"]["code"]) == ("failed", "busy")
    assert {score for _, score in case.link.served().values()} == {1}
    check_tidied(case.link.server)
    case.told("ok", "failing", "ok")


def test_the_password_was_changed(case: Case, place: Place) -> None:
    case.database.set_password(f"reader_{case.link.id}", "other words")
    run = case.link.sync()
    assert (run["phase"], run["failure"]["code"]) == ("failed", "unauthenticated")
    check_told(case.link, "failing", "last good sync are served")
    assert case.link.served() == FIRST
    assert [r["attempt"] for r in case.link.runs()] == [1, 1], "what only a person can mend is not tried again"
    shown = str(case.link.source()) + str(case.link.runs()) + place.server.log()
    assert "first words" not in shown
    put_secret(place.server, f"db-{case.link.id}", user=f"reader_{case.link.id}", password="other words")
    check_told(case.link, "ok")  # the new secret is tried at once
    case.told("ok", "failing", "ok")


# the table


def test_the_table_was_dropped(case: Case) -> None:
    case.run("DROP TABLE {t};")
    run = case.link.sync()
    assert (run["phase"], run["failure"]["code"]) == ("failed", "not_found")
    check_told(case.link, "failing", case.table)
    assert case.link.served() == FIRST
    case.database.make_table(case.table, USERS)
    case.run("UPDATE {t} SET tier = 'new';")
    case.database.allow(f"reader_{case.link.id}", case.table)
    assert case.link.sync()["phase"] == "done"
    check_told(case.link, "ok")
    assert case.link.served() == {u: ("new", score) for u, (_, score) in FIRST.items()}
    case.told("ok", "failing", "ok")


def test_a_column_was_dropped(case: Case) -> None:
    case.run("ALTER TABLE {t} DROP COLUMN tier; UPDATE {t} SET score = score + 100;")
    assert case.link.sync()["phase"] == "done"
    since = check_told(case.link, "drifted", f"'tier'; paused: users/{case.link.id}/{case.link.id}_tier")
    (drift,) = case.link.source()["drift"]
    assert (drift["column"], drift["kind"], "repair" in drift) == ("tier", "dropped", False)
    assert case.link.served() == {u: (tier, score + 100) for u, (tier, score) in FIRST.items()}
    case.run("UPDATE {t} SET score = score + 100;")
    case.link.sync()
    assert check_told(case.link, "drifted") == since, "it is the same drift, since then"
    assert case.link.served() == {u: (tier, score + 200) for u, (tier, score) in FIRST.items()}
    case.run("ALTER TABLE {t} ADD COLUMN tier varchar(40); UPDATE {t} SET tier = 'back';")
    case.link.sync()
    check_told(case.link, "ok")
    assert case.link.served() == {u: ("back", score + 200) for u, (_, score) in FIRST.items()}
    case.told("ok", "drifted", "ok")


def test_a_column_was_renamed(case: Case) -> None:
    link = case.link
    case.run("ALTER TABLE {t} RENAME COLUMN tier TO level; UPDATE {t} SET score = score + 100;")
    case.run("UPDATE {t} SET level = 'odd' WHERE user_id IN ('u1', 'u2', 'u3');")
    link.sync()
    check_told(link, "drifted", "probably renamed to 'level' (90% of the values agree)")
    (drift,) = link.source()["drift"]
    assert (drift["renamed_to"], drift["overlap"], drift["paused"]) == ("level", 0.9, [f"{link.name}/{link.id}_tier"])
    assert [c["name"] for c in link.source()["offered"]] == ["level"]
    assert link.served() == {u: (tier, score + 100) for u, (tier, score) in FIRST.items()}
    (repair,) = drift["repair"]
    assert repair["put"] == CONNECTION
    assert link.server.ask("PUT", repair["put"], repair["body"]).status == 200
    check_told(link, "ok")  # an update of the fields looks at the source again
    assert link.source()["drift"] == []
    assert link.served()["u1"] == ("odd", 101.0)
    case.run("UPDATE {t} SET level = 'fresh';")
    link.sync()
    assert {tier for tier, _ in link.served().values()} == {"fresh"}
    case.told("ok", "drifted", "ok")


def retype(case: Case) -> None:
    """Make the column of numbers one of words, and let all others go on."""
    if case.database.kind == "postgres":
        case.run("ALTER TABLE {t} ALTER COLUMN score TYPE varchar(40) USING 'rank ' || score;")
    else:
        case.run("ALTER TABLE {t} MODIFY score varchar(40); UPDATE {t} SET score = concat('rank ', score);")
    case.run("UPDATE {t} SET tier = 'fresh';")
    assert case.link.sync()["phase"] == "done"
    check_told(case.link, "drifted", "100 % of the cells of column 'score'")
    (drift,) = case.link.source()["drift"]
    assert (drift["kind"], drift["paused"]) == ("retyped", [f"{case.link.name}/{case.link.id}_score"])
    assert case.link.served() == {u: ("fresh", score) for u, (_, score) in FIRST.items()}


def test_a_column_was_retyped_and_the_field_follows(case: Case) -> None:
    retype(case)
    id = f"{case.link.id}_score"
    added = [{"id": id, "source_name": "score", "type": "string"}]
    attributes = {"fields_to_delete": [id], "fields_to_add": added}
    body = {"data": {"type": "connection_id", "id": case.link.id, "attributes": attributes}}
    assert case.link.server.ask("PUT", CONNECTION, body).status == 200
    check_told(case.link, "ok")
    assert case.link.served()["u7"] == ("fresh", "rank 7")
    case.told("ok", "drifted", "ok")


def test_a_column_was_retyped_and_comes_back(case: Case) -> None:
    retype(case)
    case.run("UPDATE {t} SET score = '12.5';")
    assert case.link.sync()["phase"] == "done"
    check_told(case.link, "ok")
    assert {score for _, score in case.link.served().values()} == {12.5}
    case.told("ok", "drifted", "ok")


# the rows


def test_the_table_was_emptied(case: Case) -> None:
    case.run("DELETE FROM {t};")
    run = case.link.sync()
    assert (run["phase"], run["failure"]["code"]) == ("failed", "conflict")
    check_told(case.link, "failing", f"the source is empty, and had {USERS}")
    assert "accept_loss" in case.link.source()["reason"]
    assert case.link.served() == FIRST
    assert case.link.sync()["phase"] == "failed", "it stays refused"
    assert case.link.sync(accept_loss=True)["phase"] == "done"
    check_told(case.link, "ok")
    assert case.link.served() == NOTHING
    case.told("ok", "failing", "ok")


def test_many_rows_went_and_came_back(case: Case) -> None:
    case.run("DELETE FROM {t} WHERE score >= 10;")
    assert case.link.sync()["phase"] == "failed"
    check_told(case.link, "failing", "has 10 rows")
    case.run("; ".join(f"INSERT INTO {{t}} VALUES ('u{n}', 'again', {n})" for n in range(10, USERS)) + ";")
    assert case.link.sync()["phase"] == "done"
    check_told(case.link, "ok")
    assert case.link.served()["u20"] == ("again", 20.0)


def test_keys_are_duplicated(case: Case) -> None:
    case.run("INSERT INTO {t} VALUES ('u1', 'second', 1001); INSERT INTO {t} VALUES ('u1', 'third', 1002);")
    case.run("INSERT INTO {t} VALUES (NULL, 'nobody', 5);")
    run = case.link.sync()
    assert run["rows"] == {"read": USERS + 3, "stored": USERS, "duplicate": 2, "keyless": 1, "misfits": 0}
    (line,) = run["coverage"]
    assert line["rows"] == {"read": USERS + 3, "matched": USERS, "unmatched": 1, "duplicate": 2}
    check_told(case.link, "ok")
    assert case.link.served() == FIRST | {"u1": ("third", 1002.0)}
    case.told("ok")


def test_a_row_is_huge(case: Case) -> None:
    case.run("ALTER TABLE {t} ADD COLUMN note " + ("text;" if case.database.kind == "postgres" else "longtext;"))
    case.run("UPDATE {t} SET tier = 'late', note = 'short';")
    if case.database.kind == "postgres":
        noise = f"(SELECT string_agg(md5(n::text), '') FROM generate_series(1, {DIGESTS}) n)"
        case.run(f"UPDATE {{t}} SET note = {noise} WHERE user_id = 'u5';")
    else:
        case.run("SET GLOBAL max_allowed_packet = 1000000000;")
        case.run(
            f"""SET group_concat_max_len = 1000000000;
            SELECT group_concat(md5(seq) SEPARATOR '') INTO @noise FROM seq_1_to_{DIGESTS};
            UPDATE {{t}} SET note = @noise WHERE user_id = 'u5';"""
        )
    run = case.link.sync()
    assert (run["phase"], (run["failure"] or {}).get("code")) == ("failed", "too_large"), run
    check_told(case.link, "failing", "last good sync are served")
    assert case.link.served() == FIRST
    case.run("UPDATE {t} SET note = 'short';")
    assert case.link.sync()["phase"] == "done"
    check_told(case.link, "ok")
    case.told("ok", "failing", "ok")


def test_a_few_cells_do_not_fit(case: Case) -> None:
    case.run("ALTER TABLE {t} ADD COLUMN plan varchar(40); UPDATE {t} SET plan = '7';")
    case.run("UPDATE {t} SET plan = 'many' WHERE user_id = 'u4';")
    added = [{"id": f"{case.link.id}_plan", "source_name": "plan", "type": "number"}]
    body = {"data": {"type": "connection_id", "id": case.link.id, "attributes": {"fields_to_add": added}}}
    case.link.sync()
    assert [c["name"] for c in case.link.source()["offered"]] == ["plan"]
    assert case.link.server.ask("PUT", CONNECTION, body).status == 200
    (line,) = case.link.sync(force=True)["coverage"]
    assert (line["cells"]["quarantined"], line["cells"]["null"]) == (1, 0)
    check_told(case.link, "ok")
    (cell,) = case.link.ask("GET", "/quarantine").json()["data"]["attributes"]["cells"]
    assert (cell["row_key"], cell["value"], cell["reason"]) == ("u4", "many", "'many' is no number")
    assert values(case.link.server, f"{case.link.id}_plan")["u4"] == (None,)
    case.told("ok")


# files


@dataclass(frozen=True)
class FileCase:
    """One CSV file, read by one connection."""

    link: Link
    path: Path
    receiver: Receiver

    def write(self, text: str | bytes) -> None:
        """Put another file in its place, as careful programs do."""
        aside = self.path.with_suffix(".new")
        aside.write_bytes(text.encode() if isinstance(text, str) else text)
        aside.rename(self.path)

    def refused(self, code: str, reason: str) -> None:
        """That a sync fails for this reason, and that nothing of it is served."""
        run = self.link.sync()
        assert (run["phase"], run["failure"]["code"]) == ("failed", code), run
        check_told(self.link, "failing", reason)
        assert self.link.served() == FIRST

    def mended(self) -> None:
        self.write(csv_of({u: ("mended", score) for u, (_, score) in FIRST.items()}))
        assert self.link.sync()["phase"] == "done"
        check_told(self.link, "ok")
        assert {tier for tier, _ in self.link.served().values()} == {"mended"}
        until(lambda: len(self.receiver.told(self.link.name)) == 3, "the webhook to hear all")
        assert self.receiver.told(self.link.name) == [("", "ok"), ("ok", "failing"), ("failing", "ok")]


def csv_of(rows: dict[str, tuple[Any, ...]], header: str = "user_id,tier,score") -> str:
    return header + "\n" + "".join(f"{user},{','.join(map(str, cells))}\n" for user, cells in rows.items())


@pytest.fixture
def file(place: Place) -> Iterator[FileCase]:
    id = f"f{next(NUMBERS)}"
    found = FileCase(Link(place.server, id), place.files / f"{id}.csv", place.receiver)
    found.write(csv_of(FIRST))
    found.link.connect("file", {"path": str(found.path)})
    check_told(found.link, "ok")
    yield found
    found.link.remove()


def test_a_file_is_gone(file: FileCase) -> None:
    file.path.unlink()
    file.refused("not_found", file.path.name)
    file.mended()


def test_a_file_is_not_utf_8(file: FileCase) -> None:
    file.write(csv_of(FIRST).encode().replace(b"u9,t0", b"u9,Z\xfcrich"))
    file.refused("invalid", "line 11")
    file.mended()


def test_a_row_of_a_file_is_huge(file: FileCase) -> None:
    file.write(csv_of(FIRST | {"u9": (f'"{"x" * ROW_BYTES}"', 9)}))
    file.refused("invalid", "line 11")
    file.mended()


def test_a_file_is_broken(file: FileCase) -> None:
    file.write(csv_of(FIRST).replace("u9,t0,9.0", 'u9,"t0,9.0'))
    file.refused("invalid", "line 11")
    file.mended()


def test_a_file_is_empty(file: FileCase) -> None:
    file.write(b"")
    run = file.link.sync()
    assert run["phase"] == "failed"
    check_told(file.link, "failing")
    assert file.link.served() == FIRST
    file.mended()


def test_a_file_has_its_header_alone(file: FileCase) -> None:
    file.write(csv_of({}))
    file.refused("conflict", "the source is empty")
    assert file.link.sync(accept_loss=True)["phase"] == "done"
    check_told(file.link, "ok")
    assert file.link.served() == NOTHING


def test_a_file_lost_its_key(file: FileCase) -> None:
    file.write(csv_of(FIRST, "who,tier,score"))
    file.refused("invalid", "no column 'user_id'")
    file.mended()


def test_a_file_has_keys_twice(file: FileCase) -> None:
    file.write(csv_of(FIRST) + "u1,second,1001\nu1,third,1002\n")
    run = file.link.sync()
    assert run["rows"] == {"read": USERS + 2, "stored": USERS, "duplicate": 2, "keyless": 0, "misfits": 0}
    check_told(file.link, "ok")
    assert file.link.served() == FIRST | {"u1": ("third", 1002.0)}


def test_an_unchanged_file_costs_nothing_even_while_it_drifts(file: FileCase) -> None:
    assert file.link.sync()["phase"] == "unchanged"
    file.write("user_id,score\n" + "".join(f"{u},{score}\n" for u, (_, score) in FIRST.items()))
    assert file.link.sync()["phase"] == "done"
    since = check_told(file.link, "drifted", "'tier'")
    assert file.link.sync()["phase"] == "unchanged"
    assert check_told(file.link, "drifted", "'tier'") == since
    assert file.link.served() == FIRST


# what is not there yet, cancelling


def test_a_missing_secret_is_waited_for(place: Place, database: Database) -> None:
    id = f"s{next(NUMBERS)}"
    database.make_table(f"people_{id}", USERS)
    database.make_user(f"reader_{id}", "words", f"people_{id}")
    metadata = database.metadata(f"people_{id}", f"db-{id}") | {"every": "10s"}
    link = Link(place.server, id).connect(database.kind, metadata)
    check_told(link, "waiting", f"there is no secret 'db-{id}'")
    assert link.served() == NOTHING
    # beside the server, which finds out at its next look
    for member, text in (("user", f"reader_{id}"), ("password", "words")):
        (place.files.parent / member).write_text(text)
    done = place.server.run_cli("secret", "set", f"db-{id}", "user=@user", "password=@password")
    assert done.returncode == 0, done.stdout + done.stderr
    check_told(link, "ok")
    assert link.served() == FIRST
    until(lambda: len(place.receiver.told(link.name)) == 2)
    assert place.receiver.told(link.name) == [("", "waiting"), ("waiting", "ok")]
    link.remove()


def test_a_source_that_is_not_there_yet_is_waited_for(place: Place) -> None:
    id = f"w{next(NUMBERS)}"
    path = place.files / f"{id}.csv"
    link = Link(place.server, id).connect("file", {"path": str(path), "every": "10s"})
    check_told(link, "waiting", path.name)
    path.write_text(csv_of(FIRST))
    check_told(link, "ok")
    assert link.served() == FIRST
    link.remove()


def test_a_running_read_is_cancelled(case: Case) -> None:
    case.run("ALTER TABLE {t} ADD COLUMN note text; UPDATE {t} SET note = repeat('x', 10000), score = 1;")
    case.proxy.hold(50_000)
    id = case.link.begin()
    assert case.proxy.met.wait(60)
    running = case.link.source()["running"]
    assert (running["id"], running["phase"], running["step"]) == (id, "running", "read")
    assert case.link.ask("POST", "/cancel").status == 202
    until(lambda: case.link.source()["running"] is None, "the run to end")
    assert case.link.runs()[0]["phase"] == "cancelled"
    check_told(case.link, "ok")
    assert case.link.served() == FIRST
    check_tidied(case.link.server)
    assert case.link.ask("POST", "/cancel").status == 409
    case.proxy.heal()
    assert case.link.sync()["phase"] == "done"
    case.told("ok")


def test_cancelling_does_not_make_a_failing_source_good(case: Case) -> None:
    case.run("ALTER TABLE {t} ADD COLUMN note text; UPDATE {t} SET note = repeat('x', 10000);")
    case.database.set_password(f"reader_{case.link.id}", "other words")
    case.link.sync()
    since = check_told(case.link, "failing")
    case.database.set_password(f"reader_{case.link.id}", "first words")
    case.proxy.hold(50_000)
    case.link.begin()
    assert case.proxy.met.wait(60)
    assert case.link.ask("POST", "/cancel").status == 202
    until(lambda: case.link.source()["running"] is None, "the run to end")
    assert check_told(case.link, "failing") == since
    case.proxy.heal()
    assert case.link.sync()["phase"] == "done"
    check_told(case.link, "ok")
