"""Timing of several tasks in alternation, with the median of each."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping


def alternate(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every task in every round, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            begun = time.perf_counter()
            task()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median of each task."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def percentile(values: list[float], percent: float) -> float:
    """Return the smallest value that at least this percentage of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def show(result: Mapping[str, object], note: str = "") -> None:
    """Print a readable table, then the result as one line of JSON."""
    width = max(map(len, result))
    for key, value in result.items():
        print(f"  {key:{width}}  {value:.4g}" if isinstance(value, float) else f"  {key:{width}}  {value}")
    if note:
        print(f"  {note}")
    print(json.dumps(result), flush=True)
