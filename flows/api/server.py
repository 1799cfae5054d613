"""`aoi api`: the server, from the address to the end of the last answer."""

import asyncio
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from flows.addresses import is_loopback, url
from flows.api.answers import Answers
from flows.api.app import make_app
from flows.api.decisions import DecisionLog
from flows.api.metrics import Metrics
from flows.api.requests import MB, Intake
from flows.champion import Champion
from flows.home import Home
from flows.settings import Settings
from tfrecords.errors import refuse

TOKEN, TOKEN_FILE = "AOI_TOKEN", "AOI_TOKEN_FILE"
LEAST_TOKEN = 16  # characters
CONNECTIONS = 1000
DRAIN_SECONDS = 60
HEAD_SECONDS, HEAD_BYTES = 10, 64 << 10  # of the head of a request


class Connection(HttpToolsProtocol):
    """A connection whose requests have heads that are small and do not take for ever.

    uvicorn waits for ever for a first request and for the rest of a head, and keeps whatever httptools reads of one. A
    thousand silent connections would shut out all others, and endless heads would fill the memory.
    """

    _apart = 0  # bytes since there was a part of a body, or the end of a request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn's."""
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self._look_again, None)

    def _look_again(self, before: RequestResponseCycle | None) -> None:
        """before: the request that was the latest when it was looked at last."""
        if self.cycle is before and (before is None or before.response_complete):
            self.transport.close()
        elif not self.transport.is_closing():
            self.loop.call_later(HEAD_SECONDS, self._look_again, self.cycle)

    def data_received(self, data: bytes) -> None:
        """As uvicorn's."""
        self._apart += len(data)
        super().data_received(data)
        if self._apart > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head has more than {HEAD_BYTES:,} bytes.")

    def on_body(self, body: bytes) -> None:
        """As uvicorn's."""
        self._apart = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """As uvicorn's."""
        self._apart = 0
        super().on_message_complete()


def api(home: Home, product: str | None, model: str | None, host: str, port: int, settings: Settings) -> int:
    """Answers over HTTP until SIGINT or SIGTERM; requests that have begun then get their answers.

    Raises: AoiError for an address that can't be used, a host without a token, no model.
    """
    try:
        return _api(home, product, model, host, port, settings)
    except KeyboardInterrupt:
        print("stopped", flush=True)
        return 0


def _api(home: Home, product: str | None, model: str | None, host: str, port: int, settings: Settings) -> int:
    token = token_for(host)
    with ExitStack() as stack:
        listening = stack.enter_context(_listen(host, port))
        champion = Champion(home, product, model, settings.predict)
        stack.callback(champion.close)
        log = None
        if settings.api.log_decisions:
            log = DecisionLog(home.root / "api", settings.api.log_mb * MB)
            stack.callback(log.close)
        metrics = Metrics()
        answers = Answers(settings.api.max_queue, metrics, log)
        stack.callback(answers.close)
        app = make_app(champion, Intake(settings.api), answers, metrics, token)
        config = uvicorn.Config(
            app,
            http=Connection,
            access_log=False,
            lifespan="off",
            limit_concurrency=CONNECTIONS,
            proxy_headers=False,  # nothing here asks who the client is
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
        champion.follow()
        address = url(host, listening.getsockname()[1])
        print(
            f"answers     {champion.now.model.path}\nat          {address}/v1/predict, see {address}/docs", flush=True
        )
        if not is_loopback(host):
            print("warning: pictures and the token travel in plain text; docs/api.md says how to put TLS before it")
        uvicorn.Server(config).run([listening])
    return 0


def token_for(host: str) -> str:
    """The token that clients must bring; "" where none is set and only this machine can ask.

    Raises: AoiError where it is needed and missing, too short, not plain, or its file can't be read or is empty.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not token and (file := os.environ.get(TOKEN_FILE)):
        try:
            token = Path(file).read_text(encoding="utf-8-sig").strip()
        except (OSError, ValueError) as error:
            raise refuse(TOKEN_FILE, f"{file} can't be read ({error})", "Name a file with the token in it")
        if not token:
            raise refuse(TOKEN_FILE, f"{file} is empty", "Write the token into it, a long random text")
    if not token and is_loopback(host):
        return ""
    remedy = f"Set {TOKEN}, or {TOKEN_FILE} to a file, to a long random text, and put TLS before it, see docs/api.md"
    if not token:
        raise refuse(f"--host {host}", "other machines can reach it, and there is no token", remedy)
    if len(token) < LEAST_TOKEN:
        raise refuse(TOKEN, f"the token has under {LEAST_TOKEN} characters", remedy)
    if not (token.isascii() and token.isprintable()):  # clients write other letters in different bytes
        raise refuse(TOKEN, "the token holds other than plain letters, digits and marks (ASCII)", remedy)
    return token


def _listen(host: str, port: int) -> socket.socket:
    """A socket on an address. Raises: AoiError where nothing can listen there."""
    if port not in range(65536):
        raise refuse("--port", f"{port} is no port", "Give a number from 1 to 65535, or 0 for one that is free")
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        made = socket.create_server(place[:2], family=family, backlog=CONNECTIONS)
    except (OSError, OverflowError) as error:
        seen = f"no server can listen there ({error})"
        raise refuse(f"--host {host} --port {port}", seen, "Name an address of this machine and a port that is free")
    # asyncio sends at once (TCP_NODELAY) through sockets that name their protocol; others wait 40 ms for the client.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, made.detach())
