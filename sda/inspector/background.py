"""Work in short steps on the loop of a kernel, so that it answers in between."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

TURN = 0.03  # seconds of work, after which the loop gets its turn
PAUSE = 0.005  # seconds in which it takes messages


@dataclass
class Job:
    """Steps that somebody waits for."""

    name: str
    steps: Iterator[Any]  # each makes a step and says how far it is
    urgency: int  # the smallest goes first
    told: Callable[[Any], None]  # called with what a step says
    ended: Callable[[BaseException | None], None]  # called once, with the error if there was one
    started: float = field(default_factory=time.monotonic)

    def left(self, done: float, total: float) -> float | None:
        """Seconds until all steps are done, as far as can be told."""
        spent = time.monotonic() - self.started
        return round(spent / done * (total - done), 1) if done else None


class Background:
    """Jobs by name; a new one of the same name takes the place of the old."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.lock = threading.RLock()  # Lab may deliver messages in a thread of their own (subshells)
        self.task: asyncio.Task | None = None
        self.watched = False  # before somebody looks, a page may still be asking for what it draws

    def go(self) -> None:
        """Begin, now that somebody looks."""
        self.watched = True
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # a script: nobody waits, see `drain`
        if self.jobs and (self.task is None or self.task.done()):
            self.task = loop.create_task(self._run())

    def start(
        self,
        name: str,
        steps: Iterator[Any],
        told: Callable[[Any], None] = lambda said: None,
        ended: Callable[[BaseException | None], None] = lambda error: None,
        urgency: int = 5,
    ) -> Job:
        """Begin with the next turn of the loop once somebody looks; without a loop when `drain` is called."""
        self.jobs[name] = job = Job(name, steps, urgency, told, ended)
        if self.watched:
            self.go()
        return job

    def cancel(self, name: str) -> bool:
        """Forget a job; whether there was one."""
        return self.jobs.pop(name, None) is not None

    def step(self) -> bool:
        """One step of the most urgent job; whether there was one."""
        with self.lock:
            if not self.jobs:
                return False
            job = min(self.jobs.values(), key=lambda one: one.urgency)
            try:
                said = next(job.steps)
            except StopIteration:
                self._end(job, None)
            except Exception as error:
                self._end(job, error)
            else:
                if self.jobs.get(job.name) is job:
                    job.told(said)
            return True

    def _end(self, job: Job, error: BaseException | None) -> None:
        if self.jobs.get(job.name) is job:
            del self.jobs[job.name]
            job.ended(error)

    def drain(self) -> None:
        """Do everything now."""
        while self.step():
            pass

    async def _run(self) -> None:
        began = time.monotonic()
        while self.step():
            if time.monotonic() - began > TURN:
                await asyncio.sleep(PAUSE)
                began = time.monotonic()

    def close(self) -> None:
        """Forget all jobs."""
        self.jobs.clear()
        if self.task is not None and not self.task.done():
            self.task.get_loop().call_soon_threadsafe(self.task.cancel)
        self.task = None
