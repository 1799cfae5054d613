"""Pictures in an object store, shards into one: S3 with faults, and Google's; compared byte for byte with a folder.

    python tests/scale/stores.py [--only PART ...]

S3 is versitygw, which checks signatures and keeps files in a folder; between it and the job every answer takes 20 ms
more, and of every fifth file the first request is refused (503), the second cut in the middle, the third slow. Google's
store is fake-gcs-server. Both are built once, by Go.
"""

import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from lab import (
    Lab,
    Part,
    check,
    contents,
    equal,
    finished,
    free_port,
    ingest,
    lacking,
    main,
    program,
    refused,
)
from scale import dask, no_dask

from tfrecords.dataset import ShardEntry

TOOLS = Path.home() / ".cache" / "aoi" / "bin"
MODULES = {
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
    "fake-gcs-server": "github.com/fsouza/fake-gcs-server@v1.56.1",
}
BUILD_SECONDS = 1200
EVERY = 5  # of so many files the requests fail
LATENCY_SECONDS, SLOW_SECONDS = 0.02, 1.0
# Headers that each connection has of its own.
OWN = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}
UNREAD = r"the store can't be read \(.*?\)(?=\. )"  # with its cause
SECRET = "s3cret-Wort"
KEYS = {"AWS_ACCESS_KEY_ID": "aoi", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}


def build(name: str) -> None:
    """Builds a server where it is not there yet."""
    if not (TOOLS / name).exists():
        print(f"building {name} into {TOOLS}", file=sys.stderr, flush=True)
        given = {**os.environ, "GOBIN": str(TOOLS)}
        subprocess.run(["go", "install", MODULES[name]], env=given, check=True, timeout=BUILD_SECONDS)


def missing(name: str) -> str | None:
    return None if (TOOLS / name).exists() else lacking(go="install Go 1.26 or later, from go.dev")


# --- Faults between the job and the store -----------------------------------------------------------------------


@dataclass
class Faults:
    """methods: of requests that fail; denied: whether one (method, path) is refused for good; seen: their count."""

    methods: tuple[str, ...] = ("GET", "PUT")
    denied: Callable[[str, str], bool] = lambda method, path: False
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    made: Counter[str] = field(default_factory=Counter)

    def choose(self, method: str, path: str) -> str:
        """By the file's name and how often it was asked for, so that no try depends on chance."""
        if self.denied(method, path):
            return "denied"
        self.seen[method, path] += 1
        if method not in self.methods or zlib.crc32(path.encode()) % EVERY:
            return ""
        return {1: "503", 2: "cut", 3: "slow"}.get(self.seen[method, path], "")

    def told(self) -> str:
        made = self.made
        return f"of {sum(made.values())} requests {made['503']} refused, {made['cut']} cut, {made['slow']} slow"


@contextmanager
def between(
    port: int, own: int, faults: Faults, change: Callable[[str, bytes], bytes] = lambda path, body: body
) -> Iterator[None]:
    """A server at the port `own`, in front of the store at `port`. change: of a request's body, by its path."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            with lock:
                fault = faults.choose(self.command, self.path)
                faults.made[fault] += 1
            body = change(self.path, self.rfile.read(int(self.headers.get("Content-Length", 0))))
            time.sleep(SLOW_SECONDS if fault == "slow" else LATENCY_SECONDS)
            if fault in ("503", "denied"):
                status, code = (503, "SlowDown") if fault == "503" else (403, "AccessDenied")
                self.send(status, {}, f"<Error><Code>{code}</Code></Error>".encode())
                return
            store = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            store.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():  # with the host, which is signed
                if name.lower() not in ("connection", "expect", "content-length"):
                    store.putheader(name, value)
            if body or self.command in ("PUT", "POST"):
                store.putheader("Content-Length", str(len(body)))
            store.endheaders(body)
            given = store.getresponse()
            headers = {name: value for name, value in given.headers.items() if name.lower() not in OWN}
            data = given.read()
            length = given.headers.get("Content-Length") if self.command == "HEAD" else None
            store.close()
            self.send(given.status, headers, data, fault == "cut", length)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

        def send(
            self, status: int, headers: Mapping[str, str], body: bytes, cut: bool = False, length: str | None = None
        ) -> None:
            """cut: what is asked is done, and the connection ends in the middle of the answer."""
            if not (cut and not body):  # of an empty answer nothing is said at all
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", length or str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body[: len(body) // 2] if cut else body)
            self.close_connection = self.close_connection or cut

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            pass  # the job was ended

    server = Server(("127.0.0.1", own), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


# --- S3 ---------------------------------------------------------------------------------------------------------


def put(lab: Lab, folder: Path) -> None:
    """The lab's pictures as a store that keeps files in a folder has them."""
    shutil.copytree(lab.data, folder / "lot" / "data")


def plain(home: Path, stored: dict[str, bytes]) -> dict[str, bytes]:
    """What ingest made, by place, wherever its shards lie. stored: content of shards by the names they have there."""
    found = contents(home)
    for name in [name for name in found if name.startswith("datasets") and name.endswith("manifest.json")]:
        manifest = json.loads(found[name])
        manifest.pop("checksum")  # of all that it says, its location too
        if manifest.pop("location", None):
            for shard in manifest["shards"]:
                entry = ShardEntry(**shard)
                found[name.replace("manifest.json", entry.file)] = stored[entry.stored_name]
        found[name] = json.dumps(manifest).encode()
    return found


def same_stored(lab: Lab, home: Path, stored: dict[str, bytes]) -> str:
    return f"{equal(plain(lab.home('local'), {}), plain(home, stored))}, with the shards in the store"


def s3(lab: Lab) -> None:
    folder, sidecar, port, faults = lab.root / "s3", lab.root / "metadata", free_port(), Faults()
    front = free_port()
    put(lab, folder)
    sidecar.mkdir()
    words = [TOOLS / "versitygw", "--port", f"127.0.0.1:{port}", "--quiet", "posix", "--sidecar", sidecar, folder]
    root = {"ROOT_ACCESS_KEY": KEYS["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": SECRET}

    def stored() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (folder / "lot" / "shards").rglob("*.tfrecord")}

    with program(words, lab.root / "versitygw.log", port, variables=root), between(port, front, faults):
        beam, data = f"--s3_endpoint_url=http://127.0.0.1:{front}", "s3://lot/data"
        settings = ["ingest.location=s3://lot/shards", "ingest.max_rejects=300"]
        start = partial(ingest, lab, settings=settings, data=data, variables=KEYS)

        def here() -> str:
            home = lab.home("s3-here")
            finished(start(home, beam), home)
            said = f"{same_stored(lab, home, stored())}; {faults.told()}"
            words = [sys.executable, "-m", "flows", "verify", "--home", home]
            given = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{front}"}
            faults.seen.clear()
            done = subprocess.run(words, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            check(done.returncode == 0, f"aoi verify: {done.stdout}")
            return said

        def by_dask() -> str:
            home = lab.home("s3-dask")
            faults.seen.clear()
            faults.made.clear()
            with dask(lab, 2, variables={**KEYS, "TMPDIR": str(lab.root)}) as engine:
                finished(start(home, f"{engine.beam} {beam}"), home)
            return f"{same_stored(lab, home, stored())}; {faults.told()}"

        def denied(home: Path, rule: Callable[[str, str], bool], cause: str) -> str:
            faults.denied = rule
            try:
                seen = refused(start(home, beam), home, cause)
            finally:
                faults.denied = Faults.denied
            check(SECRET not in seen, "it shows the secret")
            check(not list(home.rglob("rejects.csv")), "it made rejects")
            return seen

        def refused_for_good() -> str:
            home = lab.home("s3-denied")
            seen = denied(home, lambda method, path: method == "GET" and path.endswith(".png"), UNREAD)
            denied(home, lambda method, path: method == "PUT", "store can't be written")
            finished(start(home, beam), home)
            return f"told: {seen}; then {same_stored(lab, home, stored())}"

        def wrong_secret() -> str:
            home = lab.home("s3-wrong")
            job = start(home, beam, variables={**KEYS, "AWS_SECRET_ACCESS_KEY": "wr0ng-Wort"})
            return f"told: {refused(job, home, UNREAD)}"

        lab.tried("S3", "faults, one machine", here)
        if not no_dask():
            lab.tried("S3", "faults, Dask, 2 workers", by_dask)
        lab.tried("S3", "wrong secret", wrong_secret)
        lab.tried("S3", "pictures, then shards refused (403), then not", refused_for_good)


# --- Google's ---------------------------------------------------------------------------------------------------


def no_gcs() -> str | None:
    try:
        found = find_spec("google.cloud.storage")
    except ModuleNotFoundError:
        found = None
    return missing("fake-gcs-server") or (None if found else "Google's client: pip install '.[gcs]'")


def with_ids(path: str, body: bytes) -> bytes:
    """A request that gathers several, each with an ID: Google's own client writes none, and this server wants them."""
    if not path.startswith("/batch/"):
        return body
    return body.replace(b"Content-Type: application/http", b"Content-ID: <1>\r\nContent-Type: application/http")


def gcs(lab: Lab) -> None:
    folder, port, front, faults = lab.root / "google", free_port(), free_port(), Faults(("GET",))
    put(lab, folder)
    words = [TOOLS / "fake-gcs-server", "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-log-level", "error"]
    words += ["-backend", "memory", "-data", folder, "-external-url", f"http://127.0.0.1:{front}"]
    given = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{front}"}

    def stored() -> dict[str, bytes]:
        address = f"http://127.0.0.1:{port}/storage/v1/b/lot/o"
        with urllib.request.urlopen(f"{address}?prefix=shards/") as answer:
            names = [item["name"] for item in json.loads(answer.read())["items"]]
        left = [name for name in names if not name.endswith(".tfrecord")]
        check(not left, f"left in the store: {left}")
        return {
            name.rpartition("/")[2]: urllib.request.urlopen(f"{address}/{quote(name, safe='')}?alt=media").read()
            for name in names
        }

    def here() -> str:
        home = lab.home("gcs")
        settings = ["ingest.location=gs://lot/shards"]
        finished(ingest(lab, home, "--no_auth", settings, "gs://lot/data", given), home)
        return f"{same_stored(lab, home, stored())}; {faults.told()}"

    with program(words, lab.root / "gcs.log", port), between(port, front, faults, with_ids):
        lab.tried("Google", "one machine", here)


PARTS = [
    Part("s3", s3, partial(missing, "versitygw"), partial(build, "versitygw")),
    Part("gcs", gcs, no_gcs, partial(build, "fake-gcs-server")),
]

if __name__ == "__main__":
    sys.exit(main(PARTS, __doc__))
