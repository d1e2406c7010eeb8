"""Drives the official Python package in one of its three modes; knows no request body and no expectation."""

import asyncio
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

from datadog_api_client import ApiClient, AsyncApiClient, Configuration, ThreadedApiClient
from datadog_api_client.exceptions import ApiException, OpenApiException
from datadog_api_client.model_utils import ModelComposed, OpenApiModel, data_to_dict

Mode = Literal["sync", "threaded", "async"]
CALL_TIMEOUT_S = 30.0
POLL_TIMEOUT_S = 20.0
UNSTABLE = [
    "create_connection",
    "update_connection",
    "delete_connection",
    "list_connections",
    "get_mapping",
    "query_users",
    "query_accounts",
    "query_event_filtered_users",
    "get_user_facet_info",
    "get_account_facet_info",
]


class Failure(Exception):
    """The server did not do what the contract says; the text is for a reader, the status is the error's, if any."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def require(truth: bool, message: str) -> None:
    """Stops the flow with the message unless the truth holds."""
    if not truth:
        raise Failure(message)


def environment(name: str) -> str:
    """The value of a variable that the scripts cannot do without."""
    value = os.environ.get(name, "")
    require(bool(value), f"set the environment variable {name}")
    return value


def find_unparsed(value: object, path: str = "") -> Iterator[str]:
    """Paths in an answer that the client could not decode into its own model."""
    if isinstance(value, OpenApiModel):
        if value._unparsed:
            yield f"{path or '/'} ({type(value).__name__})"
        for name, inner in value._data_store.items():
            yield from find_unparsed(inner, f"{path}/{name}")
        if isinstance(value, ModelComposed):
            yield from find_unparsed(value._composed_instances, path)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from find_unparsed(inner, f"{path}/{name}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from find_unparsed(inner, f"{path}/{index}")


def configuration(url: str, api_key: str, app_key: str) -> Configuration:
    """Points the client at the server and opens the operations it calls unstable."""
    made = Configuration(host=url, return_http_data_only=False, request_timeout=CALL_TIMEOUT_S)  # type: ignore[no-untyped-call]
    made.api_key = {"apiKeyAuth": api_key, "appKeyAuth": app_key}
    for name in UNSTABLE:
        made.unstable_operations[name] = True
    return made


@dataclass(frozen=True, slots=True)
class Call:
    """One operation, its arguments and the status that the contract promises."""

    method: Callable[..., Any]
    status: int
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.method.__name__


class Session:
    """One API client of one mode; every call looks the same to the flow."""

    def __init__(self, mode: Mode, settings: Configuration) -> None:
        warnings.filterwarnings("ignore", message="Using unstable operation")
        self.mode = mode
        self._runner = asyncio.Runner() if mode == "async" else None
        self.client = self._open(settings)

    def _open(self, settings: Configuration) -> ApiClient:
        match self.mode:
            case "sync":
                return ApiClient(settings)
            case "threaded":
                return ThreadedApiClient(settings, pool_threads=4)
            case "async":
                return AsyncApiClient(settings)
            case _:
                assert_never(self.mode)

    def close(self) -> None:
        """Releases sockets, threads and the event loop."""
        if self._runner is not None:
            self._runner.run(self.client.rest_client._client.__aexit__(None, None, None))
            self._runner.close()
            return
        self.client.close()

    def send(self, calls: Sequence[Call]) -> list[Any]:
        """Answers of all the calls as plain values; threaded and async modes have them under way together."""
        names = ", ".join(dict.fromkeys(call.name for call in calls))
        try:
            raw = self._send(calls)
        except ApiException as error:
            raise Failure(f"{names}: answered {error.status}: {error.body}", error.status) from error
        except OpenApiException as error:
            raise Failure(f"{names}: the client cannot decode the answer: {error}") from error
        return [check(call, *answer) for call, answer in zip(calls, raw, strict=True)]

    def _send(self, calls: Sequence[Call]) -> list[Any]:
        match self.mode:
            case "sync":
                return [call.method(**call.arguments) for call in calls]
            case "threaded":
                return [result.get(CALL_TIMEOUT_S) for result in [call.method(**call.arguments) for call in calls]]
            case "async":
                assert self._runner is not None
                return self._runner.run(self._gather(calls))
            case _:
                assert_never(self.mode)

    async def _gather(self, calls: Sequence[Call]) -> list[Any]:
        together = asyncio.gather(*(call.method(**call.arguments) for call in calls))
        return list(await asyncio.wait_for(together, CALL_TIMEOUT_S))

    def call(self, method: Callable[..., Any], status: int, **arguments: Any) -> Any:
        """The answer of one operation as plain values."""
        return self.send([Call(method, status, arguments)])[0]

    def refused(self, method: Callable[..., Any], **arguments: Any) -> int:
        """The error status of an operation that must not succeed."""
        return self.refusal(method, **arguments)[0]

    def refusal(self, method: Callable[..., Any], **arguments: Any) -> tuple[int, str]:
        """The error status and body of an operation that must not succeed, the body as one line of JSON."""
        one = Call(method, 0, arguments)
        try:
            self._send([one])
        except ApiException as error:
            return int(error.status), json.dumps(error.body, separators=(",", ":"), ensure_ascii=False)
        raise Failure(f"{one.name}: was accepted, an error was expected")


def check(call: Call, data: object, status: int, _headers: object) -> Any:
    """Refuses an answer with another status, or one that the client could not decode."""
    require(status == call.status, f"{call.name}: expected {call.status}, got {status}")
    unparsed = list(find_unparsed(data))
    require(not unparsed, f"{call.name}: the client could not parse {', '.join(unparsed)}")
    return data_to_dict(data)  # type: ignore[no-untyped-call]


def poll(read: Callable[[], Any], good: Callable[[Any], bool], what: str) -> Any:
    """Reads until the answer is good; a failure shows the last answer."""
    stop = time.monotonic() + POLL_TIMEOUT_S
    while True:
        answer = read()
        if good(answer):
            return answer
        require(time.monotonic() < stop, f"{what}: not within {POLL_TIMEOUT_S:g} s, last answer {answer}")
        time.sleep(0.2)
