"""A mapping as a file, between real servers: export, plan, apply, drift; any far end; kills leave old or new."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import hiding_proxy
from servers import Server

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("declaration")]

KILLS = int(os.environ.get("ROSTER_KILLS", "4"))
SEED = int(os.environ.get("ROSTER_SEED", "1"))
LIMITS = json.dumps({"audience_write": "9999999/minute"})
FILE = """\
users:
  connections:
    crm:
      type: ref_table
      join: {type: email, attribute: email}
      metadata: {table_name: crm}
      fields:
        tier: {source_name: tier, type: string, groups: [CRM], pattern: "[a-z]+"}
        mrr: {source_name: mrr, type: number, description: "per month: net"}
    erp:
      type: ref_table
      join: {type: email, attribute: email}
      fields:
        plan: {source_name: plan, type: string}
accounts:
  connections:
    deals:
      type: ref_table
      join: {type: account_id, attribute: id}
"""
EDITED = FILE.replace("        tier: {", "        level: {").replace("plan: {", "offer: {renamed_from: plan, ")
EDITED = EDITED.replace("type: number", "type: string").replace("attribute: id}", "attribute: deal}")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Two organisations; the first has rows for one connection."""
    (other := tmp_path_factory.mktemp("second") / "data").mkdir()  # so that it gets keys of its own
    first = Server(tmp_path_factory.mktemp("first"), rate_limits=LIMITS)
    second = Server(other.parent, rate_limits=LIMITS)
    (first.folder / "crm.csv").write_text("email,tier,mrr\na@x.com,gold,1\nb@x.com,Silver,x\n")
    first.cli("table", "load", "crm.csv")
    with first, second:
        event = {
            "type": "server",
            "application": {"id": "s"},
            "event": {"name": "e"},
            "usr": {"id": "u", "email": "a@x.com"},
        }
        assert first.ask("POST", "/api/v2/prodlytics", event).status == 202
        yield first, second


def run(server: Server, *words: str, url: str = "", keys: bool = True) -> tuple[int, str]:
    """Exit status and output of a command against a server."""
    env = {n: v for n, v in server.env.items() if not n.startswith("DD_")} | {"COLUMNS": "200"}
    if keys:
        env |= {"ROSTER_API_KEY": server.api_key, "ROSTER_APP_KEY": server.app_key}
    command = [sys.executable, "-m", "roster", "mapping", *words, *(("--url", url) if url else ())]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, cwd=server.folder, timeout=120, stdin=subprocess.DEVNULL
    )
    return done.returncode, done.stdout + done.stderr


def put(server: Server, text: str, name: str = "m.yaml") -> str:
    (server.folder / name).write_text(text)
    return name


def state(server: Server) -> str:
    """The declared part of what is there, without the line that says when."""
    code, text = run(server, "export")
    assert code == 0, text
    return text.partition("\n")[2]


def there(server: Server) -> str:
    """What is declared at a server, without versions: quicker than the command."""
    shown = server.ask("GET", "/api/roster/declaration").json()["data"]["attributes"]
    return json.dumps({entity: part["connections"] for entity, part in shown.items()})


def versions(server: Server) -> list[int]:
    shown = server.ask("GET", "/api/roster/declaration").json()["data"]["attributes"]
    return [shown[entity]["version"] for entity in ("users", "accounts")]


def test_a_file_is_planned_applied_and_nothing_is_left(servers: tuple[Server, Server]) -> None:
    first, second = servers
    name = put(first, FILE)
    code, told = run(first, "plan", name)
    assert code == 2, told
    assert "+ users connection crm (ref_table, email joined to email)" in told
    assert "1 of 1 profiles find their row, 1 of 2 rows find no profile" in told
    assert "! tier refuses 1 of 2 cells" in told
    assert "3 to create, 0 to change, 0 to delete" in told
    code, told = run(first, "apply", name)
    assert code == 5 and "nothing was changed" in told, told
    assert versions(first) == [0, 0]
    code, told = run(first, "apply", name, "--yes", "--reason", "first of all")
    assert code == 0 and "done: the far end is as the file says" in told, told
    assert versions(first) == [1, 1]
    history = first.ask("GET", "/api/v2/product-analytics/users/mapping/versions").json()
    assert history["data"]["attributes"]["versions"][0]["why"] == "first of all"
    assert run(first, "plan", name)[0] == 0
    assert run(first, "drift", name)[0] == 0

    # edit, plan, apply: one version for each entity, whatever the number of steps
    edited = put(first, EDITED)
    code, told = run(first, "plan", edited, "--json")
    assert code == 2, told
    plan = json.loads(told)
    assert [step["step"] for step in plan["steps"]] == ["update", "update", "replace"]
    assert [f.get("guessed", False) for step in plan["steps"][:2] for f in step["fields"]] == [True, False, False]
    assert set(plan["previews"]) == {"users", "accounts"}
    assert run(first, "apply", edited, "--yes")[0] == 0
    assert versions(first) == [2, 2]
    assert run(first, "plan", edited)[0] == 0

    # what is exported from one is applied to another, and then the other is the same
    assert run(first, "export", "out.yaml")[0] == 0
    exported = (first.folder / "out.yaml").read_text()
    assert exported.startswith(f"# exported from {first.url} at 20")
    name = put(second, exported, "out.yaml")
    code, told = run(second, "apply", name, "-y")
    assert code == 0, told
    assert "! table crm is not there: bring its rows" in told
    code, told = run(second, "plan", name)
    assert code == 0 and "! table crm" in told, told
    assert run(second, "drift", name)[0] == 2
    assert state(second).partition("\ntables:")[0] == state(first).partition("\ntables:")[0]


def test_what_the_file_does_not_say(servers: tuple[Server, Server]) -> None:
    _, second = servers
    run(second, "apply", put(second, FILE), "--yes", "--prune")
    less = put(second, FILE[: FILE.index("    erp:")] + "accounts:\n")
    code, told = run(second, "plan", less)
    assert code == 0 and "! users: connection erp is not in the file and stays; --prune deletes it" in told, told
    code, told = run(second, "drift", less)
    assert code == 2 and "- users connection erp" in told and "- accounts connection deals" in told, told
    code, told = run(second, "drift", less, "--json")
    assert [step["step"] for step in json.loads(told)["steps"]] == ["delete", "delete"]
    assert run(second, "apply", less, "--yes", "--prune")[0] == 0
    assert run(second, "drift", less)[0] == 0


def test_errors_are_told_with_file_and_line_and_are_1(servers: tuple[Server, Server]) -> None:
    first, _ = servers
    code, told = run(first, "plan", put(first, FILE.replace("source_name: mrr", "source_nam: mrr")))
    assert (code, told) == (1, "invalid: m.yaml:9: unknown member 'source_nam'; did you mean 'source_name'?\n")
    # what only the far end can know comes with the line too
    code, told = run(first, "plan", put(first, FILE.replace("source_name: mrr", "source_name: mr")))
    assert code == 1 and told.startswith("invalid: m.yaml:9: connection crm: the source has no column 'mr'"), told
    name = put(first, FILE)
    assert run(first, "plan", name, keys=False)[0] == 1
    code, told = run(first, "plan", name, url="http://example.com")
    assert code == 1 and "in the clear" in told
    wrong = {"ROSTER_API_KEY": "a" * 64, "ROSTER_APP_KEY": "b" * 64}
    env = first.env | wrong
    command = [sys.executable, "-m", "roster", "mapping", "drift", name]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=first.folder, timeout=60)
    assert done.returncode == 1 and "403" in done.stderr
    assert "aaaa" not in done.stdout + done.stderr


def test_an_outdated_plan_is_refused(servers: tuple[Server, Server]) -> None:
    first, _ = servers
    shown = first.ask("GET", "/api/roster/declaration").json()["data"]["attributes"]
    del shown["accounts"]
    shown["users"]["connections"]["new"] = {"type": "ref_table", "join": {"type": "email", "attribute": "e"}}
    body = {"data": {"type": "declaration", "attributes": shown}}
    assert first.ask("PUT", "/api/roster/declaration?dry_run=true", body).status == 200
    assert first.ask("PUT", "/api/roster/declaration", body).status == 200
    assert first.ask("PUT", "/api/roster/declaration", body).status == 200  # done already: no matter which version
    del shown["users"]["connections"]["new"]["join"]
    refused = first.ask("PUT", "/api/roster/declaration", body)
    assert refused.status == 400 and b"/data/attributes/users/connections/new" in refused.body
    shown["users"]["connections"]["new"] = {"type": "ref_table", "join": {"type": "email", "attribute": "f"}}
    assert first.ask("PUT", "/api/roster/declaration", body).status == 412


def test_a_far_end_that_is_no_roster(servers: tuple[Server, Server]) -> None:
    _, second = servers
    with hiding_proxy(second.port, lambda _, path: 404 if path.startswith("/api/v2/rum/") else None) as url:
        name = put(second, FILE)
        code, told = run(second, "apply", name, "--yes", "--prune", url=url)
        assert code == 0, told
        assert "! the far end serves no segments: left out" in told
        assert "no rules of values: left out of crm/tier (pattern)" in told
        name = put(second, EDITED)
        code, told = run(second, "plan", name, url=url)
        assert code == 2 and "~ tier -> level  (taken for a rename: column and type are the same)" in told, told
        for words, status in ((["apply", name, "--yes"], 0), (["plan", name], 0), (["drift", name], 0)):
            code, told = run(second, *words, url=url)
            assert code == status, told
        code, text = run(second, "export", url=url)
        assert (
            text.partition("users:")[2].partition("\ntables:")[0]
            == state(second).partition("users:")[2].partition("\ntables:")[0]
        )


def test_a_far_end_that_fails_midway_is_brought_there_by_applying_again(servers: tuple[Server, Server]) -> None:
    _, second = servers
    allowed = 0

    def fail(verb: str, path: str) -> int | None:
        nonlocal allowed
        allowed -= verb != "GET"
        return 503 if verb != "GET" and allowed < 0 else None

    run(second, "apply", put(second, FILE), "--yes", "--prune")
    with hiding_proxy(second.port, fail) as url:
        name = put(second, EDITED)
        tries = 0
        for number in range(10):
            allowed = 1 if number else 0
            tries += 1
            if run(second, "apply", name, "--yes", url=url)[0] == 0:
                break
        assert tries > 2
        allowed = 0
        assert run(second, "plan", name, url=url)[0] == 0


def test_keys_do_not_follow_a_redirect(servers: tuple[Server, Server]) -> None:
    _, second = servers
    with hiding_proxy(second.port, lambda *_: 302) as url:
        code, told = run(second, "plan", put(second, FILE), url=url)
    assert code == 1 and "keys are not sent on" in told, told


def test_killed_at_any_point_it_is_old_or_new(servers: tuple[Server, Server]) -> None:
    """Of server and command one is killed in the middle of apply."""
    _, second = servers
    dice = random.Random(SEED)
    files = [FILE, EDITED]
    assert run(second, "apply", put(second, FILE), "--yes", "--prune")[0] == 0
    env = second.env | {"ROSTER_API_KEY": second.api_key, "ROSTER_APP_KEY": second.app_key}
    known = {0: there(second)}
    for _ in range(KILLS):
        before = 0 if there(second) == known[0] else 1
        name = put(second, files[1 - before])
        command = [sys.executable, "-m", "roster", "mapping", "apply", name, "--yes"]
        with (second.folder / "apply.log").open("w") as log:
            applying = subprocess.Popen(command, env=env, cwd=second.folder, stdout=log, stderr=log)
            _wait_for_plan(second.folder / "apply.log", applying)
            time.sleep(dice.choice([0, 0.005, 0.02, 0.05, 0.1]))
            if dice.random() < 0.5:
                applying.send_signal(signal.SIGKILL)
            else:
                second.kill()
                second.start()
            applying.wait(60)
        found = there(second)
        code, told = run(second, "plan", name)
        later = there(second)  # a server that lives on may have finished what a killed command had asked for
        if later != known[0]:
            assert known.setdefault(1, later) == later
        assert found in (later, known[before])
        assert found != later or code == (2 if later == known[before] else 0), told


def _wait_for_plan(log: Path, applying: subprocess.Popen[bytes]) -> None:
    """Until the plan is being printed: what follows is the change."""
    deadline_s = time.monotonic() + 60
    while "users connection" not in log.read_text() and applying.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.0005)
