"""Runs one published example, its text untouched, against another host; writes what came of it as JSON."""

import json
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

from datadog_api_client import Configuration
from datadog_api_client.exceptions import ApiException
from datadog_api_client.model_utils import data_to_dict
from python_client import find_unparsed


def point_at(url: str) -> None:
    """Makes the url the default of `host`, the only thing that differs from a user's own run."""
    initial: Any = Configuration.__init__
    first = initial.__code__.co_varnames[1]
    if first != "host":
        raise SystemExit(f"Configuration takes {first} first, not host")
    initial.__defaults__ = (url, *initial.__defaults__[1:])


def run(example: Path) -> dict[str, Any]:
    """What the example did: its typed answer, or the status and body of the error it met."""
    try:
        names = runpy.run_path(str(example), run_name="__main__")
    except ApiException as error:
        return {"status": error.status, "error": str(error.body)}
    answer = names.get("response")
    return {
        "status": None,
        "unparsed": list(find_unparsed(answer)),
        "answer": data_to_dict(answer),  # type: ignore[no-untyped-call]
    }


def main(url: str, example: str, outcome: str) -> None:
    """Runs the example and leaves its outcome in the named file."""
    warnings.filterwarnings("ignore", message="Using unstable operation")
    point_at(url)
    Path(outcome).write_text(json.dumps(run(Path(example))), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
