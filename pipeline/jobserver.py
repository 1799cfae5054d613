"""Starts the job server of an engine: `python -m pipeline.jobserver flink|spark`; needs Java and Maven.

The jars come by their Maven coordinates, from wherever Maven's own settings say, and are kept for the next start.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tfrecords.errors import MISSED, AoiError, refuse

BEAM = "2.62.0"  # of the job servers: the newest that were tried
# What Spark asks of Java 17 and later; spark-submit would say it.
OPEN = (
    *("java.base/java.lang", "java.base/java.lang.invoke", "java.base/java.lang.reflect", "java.base/java.io"),
    *("java.base/java.net", "java.base/java.nio", "java.base/java.util", "java.base/java.util.concurrent"),
    *("java.base/java.util.concurrent.atomic", "java.base/jdk.internal.ref", "java.base/sun.nio.ch"),
    *("java.base/sun.nio.cs", "java.base/sun.security.action", "java.base/sun.util.calendar"),
)


class Server(NamedTuple):
    """A job server. jars: Maven coordinates, group:artifact:version; master: the engine inside the server itself."""

    main: str
    jars: tuple[str, ...]
    master: str
    java: tuple[str, ...] = ()


SERVERS = {
    "flink": Server(
        "org.apache.beam.runners.flink.FlinkJobServerDriver",
        (f"org.apache.beam:beam-runners-flink-1.19:{BEAM}", "org.slf4j:slf4j-simple:1.7.36"),
        "[local]",
    ),
    "spark": Server(
        "org.apache.beam.runners.spark.SparkJobServerDriver",
        (
            f"org.apache.beam:beam-runners-spark-3:{BEAM}",
            *("org.apache.spark:spark-streaming_2.12:3.5.7", "org.apache.spark:spark-sql_2.12:3.5.7"),
            "org.slf4j:slf4j-api:2.0.7",
        ),
        "local[2]",
        tuple(f"--add-opens={package}=ALL-UNNAMED" for package in OPEN),
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Starts the job server and waits for its end. Returns: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.jobserver", description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=SERVERS)
    parser.add_argument("--port", metavar="N", type=int, default=8099, help="of the job server (default 8099)")
    parser.add_argument("--master", metavar="ADDRESS", help="of a cluster; default: the engine inside the job server")
    parser.add_argument("--jars", metavar="DIR", type=Path, help="where the jars are kept (default: ~/.cache/aoi/jars)")
    parser.add_argument("--fetch", action="store_true", help="fetch the jars and start nothing")
    given = parser.parse_args(argv)
    try:
        folder = fetch(given.engine, given.jars or Path.home() / ".cache" / "aoi" / "jars")
        line = command(given.engine, folder, given.port, given.master)
    except AoiError as error:
        print(f"jobserver: {error}", file=sys.stderr)
        return error.exit_code
    if given.fetch:
        print(folder)
        return 0
    return serve(line)


def serve(line: Sequence[str]) -> int:
    """Runs the job server until it ends, or until Ctrl-C or SIGTERM end it. Returns: the exit code."""
    stopped, server = False, None

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True
        if server:
            server.terminate()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server = subprocess.Popen(line)
    if stopped:  # before it was there
        server.terminate()
    code = server.wait()
    return 0 if stopped else code


def fetch(engine: str, root: Path) -> Path:
    """The folder of an engine's jars, fetched where it is not there yet. Raises: AoiError."""
    jars = SERVERS[engine].jars
    folder = root / "-".join([engine, *(jar.rpartition(":")[2] for jar in jars)])
    if folder.is_dir():
        return folder
    mvn = _program("mvn", "Install Maven (on Debian and Ubuntu: apt install maven)")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as aside:
        Path(aside, "pom.xml").write_text(_pom(jars))
        print(f"jobserver: fetching the jars of {engine} into {folder}", file=sys.stderr)
        done = subprocess.run(
            [mvn, "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=jars"],
            cwd=aside,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            said = [line for line in done.stdout.splitlines() if "ERROR" in line][:1] or ["it says nothing"]
            remedy = "See that Maven reaches its repository (its settings.xml names one) and run again"
            raise refuse(f"the jars of {engine}", f"Maven ended with {said[0][:300]}", remedy, exit_code=MISSED)
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(Path(aside, "jars"), folder)  # whole or not at all
    return folder


def command(engine: str, jars: Path, port: int, master: str | None) -> list[str]:
    """The command line of a job server. Raises: AoiError where Java is not there."""
    server = SERVERS[engine]
    return [
        _program("java", "Install Java 17 (on Debian and Ubuntu: apt install openjdk-17-jre-headless)"),
        *server.java,
        *("-cp", f"{jars}{os.sep}*", server.main),
        *("--job-port", str(port), "--artifact-port", "0", "--expansion-port", "-1"),
        "--flink-master" if engine == "flink" else "--spark-master-url",
        master or server.master,
    ]


def _program(name: str, remedy: str) -> str:
    if not (found := shutil.which(name)):
        raise refuse(name, "it is not on this machine", remedy, exit_code=MISSED)
    return found


def _pom(jars: Sequence[str]) -> str:
    """What Maven reads: a project that is nothing but its dependencies."""
    inside = ""
    for jar in jars:
        group, artifact, version = jar.split(":")
        inside += f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        inside += f"<version>{version}</version></dependency>"
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>aoi</groupId><artifactId>jobserver</artifactId>"
        f"<version>1</version><dependencies>{inside}</dependencies></project>\n"
    )


if __name__ == "__main__":
    sys.exit(main())
