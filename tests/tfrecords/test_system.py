"""What differs between operating systems: locks that outlive no owner, programs that end with all their children."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tfrecords import system
from tfrecords.system import end_with, locked, nvidia_gpus, rename, shielded, start, stop, sync

ROOT = Path(system.__file__).parents[1]
PATIENCE = 120  # seconds for what takes milliseconds on an idle machine


def python(code: str, *words: object, **given) -> subprocess.Popen:
    """A Python process that has `say`, which writes a line to its parent, and waits for its input at its end."""
    begins = "import os, sys, time, pathlib, signal\ndef say(text): print(text, flush=True)\n"
    command = [sys.executable, "-c", begins + code + "\nsys.stdin.read()", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **given)


def until(holds) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- Locks --------------------------------------------------------------------------------------------------


def test_owners_of_a_lock_never_overlap_though_its_file_comes_and_goes(tmp_path):
    inside, most = [], []

    def enter(_):
        for _ in range(20):
            with locked(tmp_path / ".lock"):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(enter, range(6)))
    assert len(most) == 120
    assert max(most) == 1
    assert not os.listdir(tmp_path)


def test_who_waited_for_a_file_that_went_takes_no_lock_that_others_do_not_see(tmp_path, monkeypatch):
    path, waits = tmp_path / ".lock", []

    def lock(handle):
        waits.append(handle)
        if len(waits) == 1:  # meanwhile its owner removes the file, and another makes it anew
            path.unlink()
            path.touch()

    monkeypatch.setattr("filelock.lock_descriptor", lock)
    with locked(path):
        assert len(waits) == 2
        assert os.path.samefile(path, waits[-1])


def test_another_process_waits_for_a_lock(tmp_path):
    code = "from tfrecords.system import locked\nsay('comes')\nwith locked(pathlib.Path(sys.argv[1])): say('has it')"
    with locked(tmp_path / ".lock"):
        process = python(code, tmp_path / ".lock")
        assert process.stdout.readline() == "comes\n"
        told = threading.Thread(target=process.stdout.readline)
        told.start()
        told.join(0.5)
        assert told.is_alive()  # it says nothing more
    told.join(PATIENCE)
    assert not told.is_alive()
    process.communicate()
    assert os.listdir(tmp_path) == []


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    code = (
        "from tfrecords.system import locked\nwith locked(pathlib.Path(sys.argv[1])): say('has it'); sys.stdin.read()"
    )
    process = python(code, tmp_path / ".lock")
    assert process.stdout.readline() == "has it\n"
    process.kill()
    process.communicate()
    assert os.listdir(tmp_path) == [".lock"]
    with locked(tmp_path / ".lock"):
        pass
    assert os.listdir(tmp_path) == []


def test_an_error_under_a_lock_sets_it_free(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / ".lock"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_lock_that_can_t_be_made_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "none" / ".lock"):
        pass


# --- Files and folders --------------------------------------------------------------------------------------


def test_files_and_folders_can_be_made_safe(tmp_path):
    (tmp_path / "file").write_text("x")
    sync(tmp_path / "file")
    sync(tmp_path)


def test_a_file_takes_the_place_of_another_and_a_folder_that_of_none(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).write_text(name)
    rename(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "new"
    (tmp_path / "folder").mkdir()
    rename(tmp_path / "folder", tmp_path / "moved")
    assert sorted(os.listdir(tmp_path)) == ["moved", "old"]


def test_windows_waits_for_a_reader_of_what_is_to_be_renamed(tmp_path, monkeypatch):
    tries, really = [], os.replace

    def refuses_twice(source, target):
        tries.append(1)
        if len(tries) < 3:
            raise PermissionError("used by another process")
        really(source, target)

    (tmp_path / "new").write_text("new")
    monkeypatch.setattr(os, "replace", refuses_twice)
    monkeypatch.setattr(system, "POLL_SECONDS", 0)
    with pytest.raises(PermissionError):
        rename(tmp_path / "new", tmp_path / "old")
    monkeypatch.setattr(sys, "platform", "win32")
    rename(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "new"


# --- Programs -----------------------------------------------------------------------------------------------

FAMILY = """
import subprocess, sys, signal, time
stubborn = sys.argv[1] == 'stubborn'
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = 'import signal, time; '
code += 'signal.signal(signal.SIGTERM, signal.SIG_IGN); ' if stubborn else ''
code += 'print("child", flush=True); time.sleep(1000)'
child = subprocess.Popen([sys.executable, '-c', code])
print('parent', child.pid, flush=True)
if sys.argv[1] == 'gone':
    sys.exit(3)
time.sleep(1000)
"""


@pytest.mark.parametrize("how", ["willing", "stubborn", "gone"])
def test_a_program_is_stopped_with_all_that_it_started(how, tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    process = start([sys.executable, "-c", FAMILY, how], dict(os.environ), log)
    until(lambda: {"before", "parent", "child"} <= set(log.read_text().split()))
    child = psutil.Process(int(re.search(r"parent (\d+)", log.read_text())[1]))
    if how == "gone":
        assert process.wait(PATIENCE) == 3
    stop(process, 0.5 if how == "stubborn" else PATIENCE)
    assert process.poll() == {"willing": -signal.SIGTERM, "stubborn": -signal.SIGKILL, "gone": 3}[how]
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_on_windows_a_program_is_stopped_with_its_children_by_force(tmp_path, monkeypatch):
    log = tmp_path / "log"
    process = start([sys.executable, "-c", FAMILY, "stubborn"], dict(os.environ), log)
    until(lambda: {"parent", "child"} <= set(log.read_text().split()))
    child = psutil.Process(int(re.search(r"parent (\d+)", log.read_text())[1]))
    monkeypatch.setattr(sys, "platform", "win32")
    stop(process, PATIENCE)
    monkeypatch.undo()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_ctrl_c_at_the_terminal_reaches_no_program_that_was_started(tmp_path):
    process = start(
        [sys.executable, "-c", "import sys; print(sys.stdin.read(), 'read')"], dict(os.environ), tmp_path / "log"
    )
    assert os.getpgid(process.pid) != os.getpgid(0)
    assert process.wait(PATIENCE) == 0  # its input is empty, not the terminal


def test_a_shielded_program_goes_on_after_ctrl_c():
    code = "import signal, sys; signal.raise_signal(signal.SIGINT); print(sys.argv[1:])"
    line = shielded([sys.executable, "-c", code, "two words", "$HOME 'x'"])
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert done.stdout == """['two words', "$HOME 'x'"]\n"""


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
def test_a_process_ends_with_another_that_was_killed(reaped):
    owner = python("say('up')")
    assert owner.stdout.readline() == "up\n"
    bound = python("from tfrecords.system import end_with\nsay('up'); end_with(int(sys.argv[1]))", owner.pid)
    assert bound.stdout.readline() == "up\n"
    assert bound.poll() is None
    owner.kill()
    if reaped:
        owner.wait(PATIENCE)
    assert bound.wait(PATIENCE) == 1
    for each in (owner, bound):
        each.communicate()


def test_a_process_may_say_first_how_it_ended():
    child = """
        import os, signal, sys
        from tfrecords.system import end_with_parent
        signal.signal(signal.SIGTERM, lambda *_: (print("asked", flush=True), os._exit(7)))
        end_with_parent(60)
        print("up", flush=True)
        signal.pause()
    """
    owner = python(f"import subprocess; subprocess.run([sys.executable, '-c', {textwrap.dedent(child)!r}])")
    assert owner.stdout.readline() == "up\n"
    owner.kill()
    assert owner.stdout.readline() == "asked\n"
    owner.communicate()


def test_a_process_ends_at_once_with_another_that_is_gone(monkeypatch):
    owner = python("")
    owner.communicate()
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    end_with(owner.pid)
    assert codes == [1]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone gives memory back")
def test_memory_that_is_freed_is_kept_also_where_dask_has_its_workers_give_it_back():
    code = """
        import resource
        from tfrecords.system import keep_freed_memory
        def pages():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(100):
                bytearray(b"x") * 1_000_000
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        given_back = pages()
        keep_freed_memory()
        pages()  # the memory that is kept from now on
        say(f"{given_back} {pages()}")
    """
    process = python(textwrap.dedent(code), env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"})
    given_back, kept = map(int, process.communicate()[0].split())
    assert given_back > 10 * max(kept, 100)


def test_gpus_are_counted_by_their_driver_and_none_without_one(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert nvidia_gpus() == 0
    driver = SimpleNamespace(
        cuInit=lambda flags: 0, cuDeviceGetCount=lambda count: setattr(count._obj, "value", 3) or 0
    )
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert nvidia_gpus() == 3
    driver.cuInit = lambda flags: 100  # no device
    assert nvidia_gpus() == 0
