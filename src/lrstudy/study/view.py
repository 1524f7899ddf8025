"""What a person sees of the engine: in a terminal what runs and how far all is, in a log what ends."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from lrstudy.study.engine import Costs, Job, Progress
from lrstudy.study.runs import PROGRESS
from lrstudy.words import counted

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult


class View:
    """Shows a :class:`~lrstudy.study.engine.Progress`.

    In a terminal the trainings under way with their last epochs, and one line for all. Elsewhere a dated line
    when a job has ended; then trainings print their epochs themselves.

    Args:
        costs: what jobs are expected to take.
    """

    def __init__(self, costs: Costs):
        from rich.console import Console

        self._console = Console(stderr=True)
        self._costs = costs
        self._progress, self._failed = Progress(), 0
        self.is_live = self._console.is_terminal

    def __enter__(self) -> "View":
        if self.is_live:
            from rich.live import Live

            self._live = Live(self, console=self._console, refresh_per_second=2, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.is_live:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        if self.is_live:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def show(self, progress: Progress, ended: Job | None) -> None:
        """Take note of how far all is, of a job that has ended, and of cells that have failed."""
        self._progress = progress
        when = time.strftime("%H:%M:%S")
        for name, error in list(progress.failed.items())[self._failed :]:
            self._failed += 1
            if progress.running:  # else who asked for the cells says what was wrong
                self.say(f"{when}  {name} has failed, the others go on: {error}")
        if ended is not None:
            self.say(f"{when}  {ended.label} has ended; {self._summary()}")

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for job in list(self._progress.running.values()):
            table.add_row(job.label, *_last_epoch(job))
        yield table
        yield self._summary()

    def _summary(self) -> str:
        """How far all is, in words."""
        progress = self._progress
        if not (progress.done or progress.running or progress.failed):
            return "planning"
        words = [f"{progress.done} done", f"{len(progress.running)} running", f"{progress.ready} ready"]
        if progress.failed:
            words.append(f"{counted(len(progress.failed), 'cell')} failed")
        left = self._costs.left(progress)
        if self._costs.are_known and left >= 1:
            words.append(f"{left / 3600:.1f} core-hours left, {_clock(left / max(1, progress.room))}")
        return ", ".join(words)


def _last_epoch(job: Job) -> list[str]:
    """What the last epoch of a training under way came to."""
    try:
        last = json.loads((Path(job.task["folder"]) / PROGRESS).read_text("utf-8"))
        return [
            f"epoch {last['epoch']}/{job.epochs:g}",
            f"train {last['train/loss']:.4f}",
            f"validation {last['validation/loss']:.4f}",
            f"accuracy {last['validation/accuracy']:.4f}",
            f"{last['seconds']:.1f} s",
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # none has ended yet


def _clock(seconds: float) -> str:
    minutes = int(seconds / 60 + 0.5)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{max(1, minutes)} min"
