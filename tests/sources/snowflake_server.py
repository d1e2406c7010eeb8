"""Runs fakesnow's wire server for the tests of the Snowflake source, in an environment of its own: PORT."""

import json
import sys

import uvicorn
from fakesnow.server import app, login_request
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

PASSWORD = "right horse"
TOKENS = {"masterToken": "m", "masterValidityInSeconds": 14400, "validityInSeconds": 3600, "sessionId": 1}
"""What a login's answer has besides; fakesnow leaves it out and connector 5 asks for it."""


async def login(request: Request) -> Response:
    """fakesnow's login, but with a password that can be wrong, as the documented answer says it."""
    body = await request.json()
    if body["data"].get("PASSWORD", PASSWORD) != PASSWORD:
        message = "Incorrect username or password was specified."
        wrong = {"data": {"authnMethod": "USERNAME_PASSWORD"}, "code": "390100", "message": message, "success": False}
        return JSONResponse(wrong)
    answer = json.loads(bytes((await login_request(request)).body))
    answer["data"] |= TOKENS
    return JSONResponse(answer)


if __name__ == "__main__":
    routes = [Route("/session/v1/login-request", login, methods=["POST"]), Mount("/", app)]
    uvicorn.run(Starlette(routes=routes), port=int(sys.argv[1]), log_level="warning")
