"""Progress on stderr: a bar on a terminal, a plain line every 10 s elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any, Callable, Optional

LOG = logging.getLogger("batchinfer")
LINE_EVERY_S = 10.0


class ProgressDisplay:
    """Shows rows, rows/s and time left; rows of an earlier run count as done, not as speed.

    Args:
        total, done: rows of the plan, and those committed before.
        stream: where it is shown; a terminal gets a bar.
    """

    def __init__(
        self,
        total: int,
        done: int,
        stream: Any = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._clock = total, clock
        self._rows_at_start = done  # the rate is taken from the first rows that were seen on
        self._started_at: Optional[float] = None
        self._shown_at = clock()
        self._bar: Any = None
        stream = stream or sys.stderr
        if stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=done, unit="row", unit_scale=True, file=stream,
                dynamic_ncols=True, desc="scoring",
            )  # fmt: skip

    def show(self, rows: int, note: str) -> None:
        """Show that `rows` rows are scored, earlier runs included; no oftener than is useful."""
        now = self._clock()
        if self._started_at is None and rows > self._rows_at_start:
            self._started_at, self._rows_at_start = now, rows
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(max(0, rows - self._bar.n))
        elif now - self._shown_at >= LINE_EVERY_S:
            self._shown_at = now
            LOG.info("%s, %s", progress_line(self._total, rows, self._rate(rows, now)), note)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _rate(self, rows: int, now: float) -> float:
        if self._started_at is None or now <= self._started_at:
            return 0.0
        return max(0, rows - self._rows_at_start) / (now - self._started_at)


def progress_line(total: int, rows: int, rate: float) -> str:
    """`12,345 of 100,000 rows (12 %), 1,234 rows/s, 1m 11s left`."""
    share = 100 * rows // total if total else 100
    left = _duration((total - rows) / rate) + " left" if rate > 0 else "time left unknown"
    return f"{rows:,} of {total:,} rows ({share} %), {rate:,.0f} rows/s, {left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
