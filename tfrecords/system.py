"""What differs between operating systems: locks, renames, folders on the disk, processes that end together.

No other module but `tfrecords.cores` uses what only some systems have. filelock and psutil are imported late: a
command that finds everything done needs neither.
"""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

POLL_SECONDS = 0.2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
READER_SECONDS = 5.0  # how long Windows waits for readers of a file that is to be renamed


def sync(path: Path) -> None:
    """Returns when a file's bytes, or a folder's list of names, are on the disk and outlive a power cut."""
    if sys.platform == "win32" and path.is_dir():
        return  # Windows opens no folders; its file system keeps a journal of names
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(source: Path, target: Path) -> None:
    """Renames a file or a folder in one step; a file that has the new name already goes.

    Windows renames nothing that somebody reads: there it waits for readers, for some seconds.

    Raises:
        OSError: as os.replace.
    """
    if sys.platform == "win32":
        deadline = time.monotonic() + READER_SECONDS
        while time.monotonic() < deadline:
            with suppress(PermissionError):
                return os.replace(source, target)
            time.sleep(POLL_SECONDS)
    os.replace(source, target)


@cache
def keep_freed_memory() -> None:
    """From now on this process keeps memory that it frees for what it needs next, as it does by default.

    Dask has its workers give it back (MALLOC_TRIM_THRESHOLD_), and then the system clears the pages of every picture's
    buffers anew: a third of a worker's time.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # of glibc alone
            mallopt = ctypes.CDLL(None).mallopt
            for option, size in ((M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 128 << 20)):
                mallopt(option, size)


def nvidia_gpus() -> int:
    """How many GPUs NVIDIA's driver offers this process, as CUDA_VISIBLE_DEVICES allows; 0 where there is no driver."""
    count = ctypes.c_int()
    with suppress(OSError):  # no such library
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) == driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock that the system drops when its owner ends, however it ends; its file goes with the last owner.

    Only other callers of `locked` respect it. Raises: OSError where the file can't be made.
    """
    from filelock import lock_descriptor

    with ExitStack() as stack:
        if sys.platform == "win32":
            stack.callback(_remove_closed, path)
        while True:
            file = stack.enter_context(open(path, "a"))
            lock_descriptor(file.fileno())
            # Its last owner may have removed the file while we waited: then we hold a lock that nobody else sees.
            with suppress(FileNotFoundError):
                if os.path.samefile(path, file.fileno()):
                    break
        if sys.platform != "win32":
            stack.callback(path.unlink, missing_ok=True)  # before it is closed, which gives the lock to the next
        yield


def _remove_closed(path: Path) -> None:
    """Removes a lock's file on Windows, which refuses that while the next owner has it open."""
    with suppress(OSError):
        path.unlink()


def start(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Starts a program that Ctrl-C at this terminal does not reach; what it prints is added to `log`. See `stop`."""
    group = 0
    if sys.platform == "win32":  # which has no sessions, and passes over being asked for one
        group = subprocess.CREATE_NEW_PROCESS_GROUP
    with open(log, "ab") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            creationflags=group,
        )


def stop(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Ends a program of `start` with all that it started: asks them to, and forces those that stay for `seconds`.

    On Windows they are not asked, and what a program left behind that ended by itself is not found.
    """
    if sys.platform == "win32":
        import psutil

        with suppress(psutil.NoSuchProcess):
            program = psutil.Process(process.pid)
            for each in [program, *program.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
        process.wait()
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                process.poll()
                os.killpg(process.pid, 0)  # raises once the last of them, which may still be saving its work, is gone
                time.sleep(POLL_SECONDS / 4)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def shielded(command: Sequence[str]) -> str:
    """The command as a line for the system's shell, of a program that Ctrl-C does not end.

    On Windows the program itself must ignore it.
    """
    if sys.platform == "win32":
        return subprocess.list2cmdline(command)
    return "trap '' INT; exec " + shlex.join(command)


def end_with(owner: int, seconds: float = 0) -> None:
    """Waits for another process to end, however it ends, and then ends this one.

    seconds: that this one has left after SIGTERM, to say how it ended; 0: it is not asked. Not on Windows.
    """
    import psutil

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(owner)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(POLL_SECONDS)
    if seconds and sys.platform != "win32":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(seconds)
    os._exit(1)


def end_with_parent(seconds: float) -> None:
    """From now on this process ends with the one that started it. seconds: see `end_with`."""
    threading.Thread(target=end_with, args=(os.getppid(), seconds), daemon=True).start()
