"""Callbacks for commits.

One thread reads the journal after each commit and calls every watcher, in order of commits. A callback that raises is
logged, and called again with the next commit; one that is slow delays the other watchers, never a commit.

A commit is told when it will still be there after a crash: when it is on the disk, unless the store is "buffered". A
watcher that is so slow that the journal has forgotten commits by then goes on with those that are left; that is logged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from atop.database import Database
from atop.errors import AtopError, NoSuchCommit, StoreClosed, StoreFull
from atop.journal import Commit, commits_after

log = logging.getLogger(__name__)

# How long closing a store waits for a callback, in seconds.
PATIENCE = 10.0
# How soon the journal is read again where a full disk keeps the store from being opened, in seconds.
RETRY_SECONDS = 1.0


class Watch:
    """One callback that is called; `close` ends that."""

    def __init__(self, watchers: Watchers, callback: Callable[[Commit], object], since: int) -> None:
        self._watchers = watchers
        self._callback = callback
        self._seen = since  # the number of the last commit that the callback was given
        self._closed = False

    def close(self) -> None:
        """Call back no more; a call that is under way may still end after this."""
        self._watchers.remove(self)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _give(self, commit: Commit) -> None:
        if commit.number <= self._seen or self._closed:
            return
        self._seen = commit.number
        try:
            self._callback(commit)
        except BaseException:  # whatever an application's callback raises is its own affair
            log.exception("a watcher failed on commit %d (%r)", commit.number, commit.label)


class Watchers:
    """The callbacks of one store. The thread runs only while there are any."""

    def __init__(self, engine: Database) -> None:
        self.engine = engine
        self._changed = threading.Condition()
        self._watches: list[Watch] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, callback: Callable[[Commit], object]) -> Watch:
        """Call `callback` with every commit from the next one on."""
        with self._changed:
            watch = Watch(self, callback, self.engine.settled())
            self._watches.append(watch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="atop-watch", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return watch

    def remove(self, watch: Watch) -> None:
        """Call this one no more."""
        watch._closed = True
        with self._changed:
            if watch in self._watches:
                self._watches.remove(watch)
            self._changed.notify_all()

    def notify(self) -> None:
        """There are new commits."""
        if self._watches:
            with self._changed:
                self._changed.notify_all()

    def rewind(self) -> None:
        """Commits may have been lost, and their numbers be given to others: those are to be told."""
        with self._changed:
            for watch in self._watches:
                watch._seen = min(watch._seen, self.engine.settled())

    def close(self) -> None:
        """Give the callbacks what they have not seen, and end the thread; not for ever, if one of them hangs."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(PATIENCE)
            if thread.is_alive():
                log.warning("a watcher has not come back for %d seconds: the store closes without it", PATIENCE)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and self._watches and not self._behind():
                    self._changed.wait()
                watches = list(self._watches)
                if not watches or (self._closed and not self._behind()):
                    self._thread = None
                    return
            try:
                self._tell(watches)
            except StoreClosed:
                self._stop()
            except StoreFull as error:  # the journal can be read again once there is room
                log.warning("watchers wait: %s", error)
                with self._changed:
                    self._changed.wait(RETRY_SECONDS)
            except AtopError as error:
                log.warning("watchers stop: the journal cannot be read: %s", error)
                self._stop()

    def _tell(self, watches: list[Watch]) -> None:
        since = min(watch._seen for watch in watches)
        try:
            for commit in commits_after(self.engine, since):
                for watch in watches:
                    watch._give(commit)
        except NoSuchCommit as error:
            log.warning("watchers have missed commits: %s", error)
            oldest = self.engine.oldest_commit()
            for watch in watches:
                watch._seen = max(watch._seen, oldest - 1)

    def _stop(self) -> None:
        with self._changed:
            self._watches.clear()

    def _behind(self) -> bool:
        return any(watch._seen < self.engine.settled() for watch in self._watches)
