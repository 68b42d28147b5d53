"""Answers a browser on this machine, and nobody else.

The server listens on the loopback interface only. Each request must name this server as its host,
which no page of another name can do for it (DNS rebinding), and come from its own page or from the
address bar. It answers GET, at a few fixed addresses; a request names tokens and samples by their
numbers, so that no path on disk depends on it. Every text of a dataset travels as JSON.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from keygap.errors import UserError
from keygap.reporting.explorer.data import as_json
from keygap.reporting.view.asked import Query, Refused
from keygap.reporting.view.explored import Explored
from keygap.reporting.view.page import page_of

LOOPBACK = "127.0.0.1"
MOST_PARAMETERS = 40
PATIENCE = 30  # seconds that a connection may say nothing

logger = logging.getLogger("keygap")


class ViewServer(ThreadingHTTPServer):
    """A server of one run, which listens from when it is made.

    Args:
        explored: the run.
        port: to listen on; 0 means a free one.

    Attributes:
        page: the page, as bytes.
        policy: its Content Security Policy.
        answers: what each address answers.

    Raises:
        UserError: the port is taken, or not for this user.
    """

    daemon_threads = True
    # Another server must not take the port of one that runs.
    allow_reuse_port = False

    def __init__(self, explored: Explored, port: int = 0) -> None:
        self.page, self.policy = page_of(explored)
        self.answers: dict[str, Callable[[Query], dict[str, Any]]] = {
            "/api/points": explored.points,
            "/api/inside": explored.inside,
            "/api/sample": explored.sample,
            "/api/words": explored.words,
            "/api/elsewhere": explored.elsewhere,
        }
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"port {port} cannot be used ({reason}): name another with --port"
            ) from error

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may call this server."""
        return tuple(f"{host}:{self.server_port}" for host in (LOOPBACK, "localhost"))

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{self.names[0]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong; a browser that went away is no error."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            logger.exception("a request failed")


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "keygap", ""
    timeout = PATIENCE
    fixed: ClassVar = {
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }

    def do_GET(self) -> None:
        """Answer the page or one of its questions."""
        if (why := self._refusal()) is not None:
            self._send(HTTPStatus.FORBIDDEN, {"error": why})
            return
        try:
            address = urlsplit(self.path)
        except ValueError:
            self._send(HTTPStatus.BAD_REQUEST, {"error": "this is no address"})
            return
        if address.path == "/":
            self._reply(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8")
        elif (answer := self.server.answers.get(address.path)) is None:
            self._send(HTTPStatus.NOT_FOUND, {"error": "there is nothing here"})
        else:
            self._send(*_answered(answer, address.query))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a request that the server does not take, such as one that is no GET."""
        self.close_connection = True  # what follows may be the rest of the request
        status = HTTPStatus(code)
        if status == HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._send(status, {"error": status.phrase})

    def _refusal(self) -> str | None:
        """Why a request is not from a page of this server; None if it is."""
        names = self.server.names
        if self.headers.get_all("Host", []) not in [[name] for name in names]:
            return f"this server is {names[0]}"
        for origin in self.headers.get_all("Origin", []):
            if origin not in [f"http://{name}" for name in names]:
                return "the request is of another page"
        if self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            return "the request is of another page"
        return None

    def _send(self, status: HTTPStatus, values: dict[str, Any]) -> None:
        self._reply(status, as_json(values).encode("ascii"), "application/json")

    def _reply(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in self.fixed.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", self.server.policy)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of single requests."""


def _answered(
    answer: Callable[[Query], dict[str, Any]], query: str
) -> tuple[HTTPStatus, dict[str, Any]]:
    try:
        return HTTPStatus.OK, answer(_query(query))
    except Refused as error:
        return HTTPStatus.BAD_REQUEST, {"error": str(error)}
    except UserError as error:
        return HTTPStatus.CONFLICT, {"error": str(error)}
    except Exception:  # a fault of one answer must not end the server: it is logged and said
        logger.exception("a request failed")
        said = {"error": "keygap view failed; its terminal says why"}
        return HTTPStatus.INTERNAL_SERVER_ERROR, said


def _query(text: str) -> Query:
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, max_num_fields=MOST_PARAMETERS, errors="strict"
        )
    except ValueError as error:  # text that is not UTF-8, or too much of it
        raise Refused("this is no query") from error
    if len(dict(pairs)) < len(pairs):
        raise Refused("a parameter is given twice")
    return Query(dict(pairs))
