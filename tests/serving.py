"""What tests of `aoi serve` share: one that is running, and waiting for what it writes."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
UP_SECONDS, RUN_SECONDS, DOWN_SECONDS = 600, 600, 120  # an idle machine takes a tenth
# A proxy that answers nobody, as of a network from which the machine was taken; an exception that httpx ends at.
PROXIED = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "localhost,[::1]"}


def wait_for(what, seconds, process, log):
    """The match of a regular expression in a log that a process is writing."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if match := re.search(what, log.read_text()):
            return match
        time.sleep(0.2)
    pytest.fail(f"{what!r} not in {log.read_text()!r}; exit code {process.poll()}")


def directly(request):
    """What is answered to a request without a proxy."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return answer.read().decode()


class Serve:
    """An `aoi serve` behind a proxy, from its start to its end."""

    def __init__(self, home, log, *words):
        self.home, self.log = home, log
        with log.open("wb") as output:
            command = [BIN / "aoi", "serve", "--home", home, *map(str, words)]
            self.process = subprocess.Popen(
                command, env=os.environ | PROXIED, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        wait_for("prefect deployment run", UP_SECONDS, self.process, log)
        exports = re.findall(r"export (\w+)=(\S+)", log.read_text())
        self.variables = os.environ | PROXIED | dict(exports) | {"PREFECT_HOME": str(log.parent / "client")}
        self.api = self.variables["PREFECT_API_URL"]

    def prefect(self, line):
        """Runs a command of Prefect's as the printed words let another terminal run it; gives what it prints."""
        words = [BIN / "prefect", *shlex.split(line)]
        done = subprocess.run(words, env=self.variables, capture_output=True, text=True, timeout=RUN_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, path, body=None, method=None):
        """What the API answers. Asks again after 503, which means that its SQLite file was busy, as clients do."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.api + path, data, {"Content-Type": "application/json"}, method=method)
        deadline = time.monotonic() + RUN_SECONDS
        while True:
            try:
                return json.loads(directly(request) or "null")
            except urllib.error.HTTPError as error:
                if error.code != 503 or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def deployment(self, name):
        return self.ask(f"/deployments/name/aoi/{name}")

    def end(self, number):
        """Its exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(DOWN_SECONDS)
