"""Ctrl-C, struck at named moments of a command's life: one line, exit code 130, never a traceback."""

import contextlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

from flows import cli, interrupts

# Each strikes once it is reached. What follows runs the command as its console script does.
MOMENTS = {
    "an import before the parser": "at_import('argparse')",
    "the import of the command line": "at_import('flows.cli')",
    "the parser is made": "at_call('_parser')",
    "the words are parsed": "at_call('parse_args')",
    "an import of a command": "at_import('pydantic')",
    "a native import, which turns it into another error": "at_import('pydantic', ImportError)",
    "the command works": "at_call('describe')",
    "the command prints": "at_write('text')",
    "the command has printed": "at_write('flush')",
    "a destructor, out of which nothing is raised": "at_call('describe', in_a_destructor)",
    "twice: the stop is being told": "at_call('describe'); at_call('tell')",
    "the end of Python": "import atexit; atexit.register(strike)",
    "threads are waited for": "threading.Thread(target=lambda: (threading.main_thread().join(), strike())).start()",
}
STRIKES = """
import os, signal, sys, threading

number = getattr(signal, sys.argv.pop(1))
moment = sys.argv.pop(1)

def strike():
    signal.raise_signal(number)

class Falling:
    def __del__(self):
        strike()

def in_a_destructor():
    Falling()

def at_import(name, turned=None):
    class Finder:
        def find_spec(self, wanted, path=None, target=None):
            if wanted == name:
                sys.meta_path.remove(self)
                try:
                    strike()
                except KeyboardInterrupt as error:
                    if turned is None:
                        raise
                    raise turned('initialization failed') from error
    sys.meta_path.insert(0, Finder())

def at_call(name, how=strike):
    def watch(frame, event, given, others=sys.getprofile()):
        if others:
            others(frame, event, given)
        if event == 'call' and frame.f_code.co_name == name:
            sys.setprofile(others)
            how()
    sys.setprofile(watch)

def at_write(what):
    class Out:
        left = 1
        def strike(self, here):
            if here == what and self.left:
                self.left = 0
                strike()
        def write(self, text):
            self.strike('text')
            return len(text)
        def flush(self):
            self.strike('flush')
    sys.stdout = Out()

def at_report():
    def watch(frame, event, given):
        if event == 'return' and frame.f_code.co_name == 'read_report' and given:
            sys.setprofile(None)
            print('JOB', os.getpid(), flush=True)
            strike()
    sys.setprofile(watch)

exec(moment)
sys.argv[1:] = sys.argv[1:] or ['settings']
from flows.__main__ import main
sys.exit(main())
"""


def struck(moment, *words, name="SIGINT"):
    return subprocess.run([sys.executable, "-c", STRIKES, name, moment, *words], capture_output=True, text=True)


def command_lines():
    """Of all processes that run."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            yield process.cmdline()


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_ends_a_command_in_one_line(moment):
    done = struck(MOMENTS[moment])
    assert done.stderr == f"{interrupts.LINE}\n"
    assert done.returncode == 130


def test_so_does_the_signal_of_a_scheduler():
    done = struck(MOMENTS["the command works"], name="SIGTERM")
    assert (done.returncode, done.stderr) == (130, f"{interrupts.LINE}\n")


def test_the_processes_of_beam_end_with_the_command_and_say_nothing(data, tmp_path):
    beam = "--beam=--direct_running_mode=multi_processing --direct_num_workers=2"
    words = ["--data", data, "--home", tmp_path / "home", "--set", "ingest.shards=8", beam]
    done = struck("at_report()", "ingest", *map(str, words))
    assert done.returncode == 130
    assert [line for line in done.stderr.splitlines() if not line.startswith("ingest ")] == [interrupts.LINE]
    job = done.stdout.split()[1]
    deadline = time.monotonic() + 120
    while [words for words in command_lines() if words[1:] == ["-m", "pipeline.job.worker", job]]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_ignores_ctrl_c_from_the_start_goes_on():
    done = struck("signal.signal(number, signal.SIG_IGN); " + MOMENTS["the command works"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "train.epochs" in done.stdout


def test_a_command_that_nothing_interrupts_says_nothing_of_it():
    done = struck("pass")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_that_came_of_it_is_no_error(monkeypatch, capsys):
    def fails(arguments):
        try:
            raise KeyboardInterrupt
        finally:
            raise OSError("a file that was being closed")

    monkeypatch.setattr(cli, "_settings", fails)
    assert cli.main(["settings"]) == 130
    assert capsys.readouterr().err == f"{interrupts.LINE}\n"


def test_another_error_stays_one(monkeypatch):
    def fails(arguments):
        raise ImportError("no such library")

    monkeypatch.setattr(cli, "_settings", fails)
    with pytest.raises(ImportError, match="no such library"):
        cli.main(["settings"])


def test_a_command_in_this_process_leaves_its_signals_as_they_are():
    before = [signal.getsignal(number) for number in interrupts.SIGNALS]
    assert cli.main(["settings"]) == 0
    assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before
