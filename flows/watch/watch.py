"""`aoi watch`: from the first look at the INBOX to the summary at the end."""

import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic, sleep

from flows import interrupts
from flows.champion import Champion
from flows.home import Home
from flows.progress import clear_line, duration, terminal
from flows.settings import Settings
from flows.watch.inbox import Inbox, listed, name_of, signature_at
from flows.watch.looks import QUIET_SECONDS, Look, Looks
from flows.watch.outbox import DECISIONS, Outbox, Row
from model.checks import check_unreadable_label
from model.inference.runtime import lanes
from model.settings import Decision
from tfrecords.errors import refuse

LIST_SECONDS, LIST_SHARE = 0.5, 50  # the INBOX is listed every so often, and at most a fiftieth of the time
GATHER_SECONDS = 0.005  # for which rows wait for others, since to bring one to the disk takes as long as several
STEP_MS, MOST_MS = 10, 50  # events are waited for so long together, and no longer
LOOKS_PER_LANE = 4  # so that no lane of the network waits while files are read and decoded
SIGNAL_SECONDS = 0.2
AGAIN_SECONDS = 1.0  # after which events that have ended are asked for again
RATE_SECONDS = 10


@dataclass(frozen=True)
class Moved:
    """What became of a picture that was to be moved. problem: why it stays."""

    look: Look
    done: bool
    problem: str = ""


Told = str | Look | Moved | BaseException  # by threads: the path of a file that has changed, what they did, a fault


def watch(
    home: Home, inbox: Path, out: Path, sort: bool, product: str | None, model: str | None, settings: Settings
) -> int:
    """Answers each picture that appears in a folder, once, until SIGINT or SIGTERM. sort: and moves it.

    Raises: AoiError for folders that can't be used, a model that is not there, or another process that has OUTBOX;
        OSError where decisions can't be kept.
    """
    try:
        return _watch(home, inbox, out, sort, product, model, settings)
    except KeyboardInterrupt:
        print("stopped", flush=True)
        return 0


def _watch(
    home: Home, inbox: Path, out: Path, sort: bool, product: str | None, model: str | None, settings: Settings
) -> int:
    inbox, out = check_folders(home.root, inbox, out)
    champion = Champion(home, product, model, settings.predict)
    check_unreadable_label(champion.now.answering.classifier.classes, settings.predict)
    with ExitStack() as stack:
        outbox = Outbox(out)
        stack.callback(outbox.close)
        champion.follow()
        stack.callback(champion.close)
        check = stack.enter_context(interrupts.deferred())
        tally = Tally(*terminal())
        watcher = Watcher(inbox, outbox, sort, champion, settings.predict.unreadable_label, tally)
        print(f"answers     {champion.now.model.path}\nwatches     {inbox}", flush=True)
        try:
            watcher.run(check)
        except KeyboardInterrupt:
            clear_line()
            print(f"{tally.summary()}\ndecisions   {out / DECISIONS}\nstopped", flush=True)
    return 0


def check_folders(home: Path, inbox: Path, out: Path) -> tuple[Path, Path]:
    """INBOX and OUTBOX as whole paths. Raises: AoiError for an INBOX that is no folder, or one of them in the other."""
    if not inbox.is_dir():
        seen = "it is not a folder" if inbox.exists() else "no such folder"
        raise refuse(inbox, seen, "Make the folder that pictures will appear in, or mount it, and name that")
    inbox, out, home = inbox.resolve(), out.resolve(), home.resolve()
    for name, one, other in (("--out", inbox, out), ("--home", inbox, home), ("--out", out, home)):
        if one == other:
            what = "the INBOX" if one == inbox else "HOME"
            raise refuse(name, f"{other} is {what} too", "Name a folder beside it")
        if one in other.parents or other in one.parents:
            seen = f"of {one} and {other}, one lies in the other"
            raise refuse(name, seen, "Name folders beside each other, so that no result is taken for a new picture")
    if out.exists() and not out.is_dir():
        raise refuse(out, "it is not a folder", "Name one, or a new name, with --out")
    return inbox, out


@dataclass
class Tally:
    """How many pictures were answered, and how. emit: shows a line; every: shortest time between two, in seconds."""

    emit: Callable[[str], None]
    every: float
    counts: Counter[str] = field(default_factory=Counter)
    _began: float = field(default_factory=lambda: monotonic())
    _shown: float = 0.0
    _told: int = 0
    _recent: deque[float] = field(default_factory=deque)

    def add(self, rows: list[Row]) -> None:
        """Counts pictures that have their rows."""
        now = monotonic()
        self.counts.update(row.decision or "unreadable" for row in rows)
        self._recent.extend([now] * len(rows))

    def show(self) -> None:
        """Shows a line, where there is something new and the last one is old enough."""
        now = monotonic()
        while self._recent and self._recent[0] < now - RATE_SECONDS:
            self._recent.popleft()
        total = self.counts.total()
        if total > self._told and now - self._shown >= self.every:
            self._told, self._shown = total, now
            rate = len(self._recent) / max(0.1, min(RATE_SECONDS, now - self._began))
            self.emit(f"{'watch':<9} {total:,} answered  {rate:,.0f}/s  {self._by_decision()}")

    def summary(self) -> str:
        """All of it in a line, for the end."""
        seconds = monotonic() - self._began
        return f"answered    {self.counts.total():,} in {duration(seconds)}: {self._by_decision()}"

    def _by_decision(self) -> str:
        named = [*Decision, *(["unreadable"] if self.counts["unreadable"] else [])]
        return ", ".join(f"{name} {self.counts[name]:,}" for name in named)


class Watcher:
    """Brings together what the INBOX has, the threads that look at it, and the OUTBOX.

    One thread, that of `run`, knows what is at work and writes rows, several at a time. Looks have threads of their
    own, so has moving, and so have the events of the system. All of them tell it through one queue.
    """

    def __init__(
        self, inbox: Path, outbox: Outbox, sort: bool, champion: Champion, unreadable_label: int, tally: Tally
    ):
        self._root, self._outbox, self._sort, self._tally = inbox, outbox, sort, tally
        self._looks = Looks(inbox, outbox, lambda: champion.now, unreadable_label)
        self._inbox = Inbox()
        self._queue: SimpleQueue[Told] = SimpleQueue()
        self._looking = ThreadPoolExecutor(LOOKS_PER_LANE * lanes(), thread_name_prefix="looks")
        self._moving = ThreadPoolExecutor(1, thread_name_prefix="moves")
        self._next_list = 0.0
        self._told: dict[str, str] = {}

    def run(self, check: Callable[[], None]) -> None:
        """Answers until `check` raises KeyboardInterrupt; what is being looked at then still gets its row."""
        with ExitStack() as stack:
            stack.enter_context(_events(self._root, self._queue.put))
            stack.callback(self._moving.shutdown, cancel_futures=True)
            stack.callback(self._looking.shutdown, cancel_futures=True)
            try:
                while True:
                    check()
                    self._list()
                    self._take(self._wait())
                    self._tally.show()
            except KeyboardInterrupt:
                self._looking.shutdown(cancel_futures=True)
                self._add(list(self._waiting()))
                raise

    def _wait(self) -> list[Told]:
        """What the threads have told; it waits a little for the first."""
        seconds = min(SIGNAL_SECONDS, self._next_list - monotonic())
        try:
            first = self._queue.get(timeout=max(0.001, seconds))
        except Empty:
            return []
        sleep(GATHER_SECONDS)
        return [first, *self._waiting()]

    def _waiting(self) -> Iterator[Told]:
        while True:
            try:
                yield self._queue.get_nowait()
            except Empty:
                return

    def _list(self) -> None:
        """Lists the INBOX where it is time to: events may be lost, and network shares have none."""
        if (began := monotonic()) < self._next_list:
            return
        try:
            found = listed(self._root)
        except OSError as error:
            self._tell("", f"{self._root} can't be read ({error.strerror}); it is tried again")
        else:
            self._told.pop("", None)
            for name in self._inbox.listed(found, monotonic()):
                self._look(name)
        ended = monotonic()
        self._next_list = ended + max(LIST_SECONDS, LIST_SHARE * (ended - began))

    def _look(self, name: str) -> None:
        signature, since = self._inbox.since(name)
        self._submit(self._looking, lambda: self._looks.look(name, signature, since))

    def _submit(self, pool: ThreadPoolExecutor, work: Callable[[], Look | Moved]) -> None:
        def run() -> None:
            try:
                self._queue.put(work())
            except BaseException as error:
                self._queue.put(error)

        pool.submit(run)

    def _take(self, told: list[Told]) -> None:
        """Deals with what the threads have told: first the rows, all at once, and then what follows from them."""
        self._add(told)
        for each in told:
            match each:
                case str():
                    self._changed(each)
                case Look():
                    self._looked(each)
                case Moved():
                    self._moved(each)
                case _:
                    raise each

    def _add(self, told: list[Told]) -> None:
        if rows := [each.row for each in told if isinstance(each, Look) and each.row]:
            self._tally.add(self._outbox.add(rows))

    def _changed(self, path: str) -> None:
        name = name_of(self._root, path)
        if name and self._inbox.changed(name, signature_at(Path(path)), monotonic()):
            self._look(name)

    def _looked(self, look: Look) -> None:
        again = self._inbox.ended(look.name, look.read, look.wait, monotonic())
        if self._sort and look.decision and not again:
            self._inbox.hold(look.name)
            self._submit(self._moving, lambda: self._move(look))
            return
        self._tell(look.name, look.problem)
        if again:
            self._look(look.name)

    def _move(self, look: Look) -> Moved:
        assert look.read and look.decision
        try:
            source = self._root / look.name
            return Moved(look, self._outbox.move(source, look.read, look.name, look.sha256, look.decision))
        except OSError as error:  # no room or rights there: it has its row, and all else goes on
            return Moved(look, False, f"it stays in the INBOX ({error.strerror})")

    def _moved(self, moved: Moved) -> None:
        look = moved.look
        self._tell(look.name, moved.problem)
        now, read = monotonic(), None if moved.done else look.read
        # What was not moved has changed since, or could not be: it is looked at again, which finds its row.
        wait = now - self._inbox.since(look.name)[1] + QUIET_SECONDS if moved.problem else 0
        if self._inbox.ended(look.name, read, wait, now):
            self._look(look.name)

    def _tell(self, name: str, problem: str) -> None:
        """Prints what is wrong with a file, once."""
        if not problem:
            self._told.pop(name, None)
        elif self._told.get(name) != problem:
            self._told[name] = problem
            clear_line()
            print(f"aoi watch: {f'{name}: ' if name else ''}{problem}", file=sys.stderr, flush=True)


@contextmanager
def _events(root: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """While it is open, tells the path of each file that the system says to have changed."""
    from watchfiles import watch as changes

    ended = threading.Event()

    def follow() -> None:
        for changed in changes(
            root,
            watch_filter=None,
            debounce=MOST_MS,
            step=STEP_MS,
            stop_event=ended,
            raise_interrupt=False,
            force_polling=False,  # where no events come, the list is what tells
            ignore_permission_denied=True,
        ):
            for _, path in changed:
                tell(path)

    def keep_following() -> None:
        told = ""
        while not ended.is_set():
            try:
                follow()
            except (OSError, RuntimeError) as error:  # too many folders for the system, a name that is no UTF-8
                if str(error) != told:
                    told = str(error)
                    seen = f"the system tells no changes in {root} ({error}): it is listed until that passes"
                    print(f"aoi watch: {seen}", file=sys.stderr, flush=True)
                ended.wait(AGAIN_SECONDS)

    thread = threading.Thread(target=keep_following, name="events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
