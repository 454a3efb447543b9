"""The training loop: epochs of planned items, steps of a few items each, and a folder from which a run resumes.

    state.safetensors   the position of the run (`state.py`)
    log.jsonl           every step, epoch and validation (`log.py`)
    curves.png          plot of the log (`curves.py`)
    last.safetensors    the network after the last finished epoch
    best.safetensors    the network of the best validation; without validation, of the lowest mean loss of an epoch

On a CPU a resumed run is equal to an uninterrupted one, bit by bit: random choices depend only on seed, epoch and item
number, and network, optimiser and the plan of the epoch are stored.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asmk_engine import threads
from asmk_engine.errors import DependencyError, InputError
from asmk_engine.iteration import Display, Silent
from asmk_engine.networks.checkpoints import save_checkpoint
from asmk_engine.networks.devices import check_precision
from asmk_engine.storage.folder import Folder, WriterLock
from asmk_engine.training.curves import draw_curves
from asmk_engine.training.finishing import finish_reduction
from asmk_engine.training.log import LOG, TrainingLog
from asmk_engine.training.state import STATE, TrainingPosition, load_state, save_state
from asmk_engine.training.task import TrainingTask
from asmk_engine.training.validation import Validation, main_score

LAST, BEST = "last.safetensors", "best.safetensors"
SAVE_SECONDS = 300.0
_Loaded = tuple[int, list[np.ndarray]]


@dataclass(frozen=True)
class LoopOptions:
    """The options of the training loop, by default HOW's; raises InputError for values out of range.

    epochs        total number of epochs; a finished run resumes if this is raised
    batch_size    number of items per step
    decay         factor by which the learning rate changes from one epoch to the next
    weight_decay  weight decay of Adam
    every         number of epochs between validations; the last epoch is always validated
    precision     precision of the convolutions; with fp16 gradients are scaled
    """

    epochs: int = 20
    batch_size: int = 5
    decay: float = 0.99
    weight_decay: float = 1e-4
    every: int = 5
    precision: str = "fp32"

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if min(self.epochs, self.batch_size, self.every) < 1:
            raise InputError(
                f"epochs is {self.epochs}, batch_size {self.batch_size}, every {self.every}; expected at least 1 each"
            )
        if not (0 < self.decay <= 1 and self.weight_decay >= 0):
            raise InputError(
                f"decay is {self.decay}, weight_decay {self.weight_decay}; expected a decay greater than 0, at most 1, "
                "and a weight_decay of at least 0"
            )


@dataclass(frozen=True)
class TrainingResult:
    """The result of a run: the best score (None without validation), its epoch, and the network files."""

    score: float | None
    epoch: int
    best: Path
    last: Path


class TrainingRun:
    """A training in a folder; `run` starts or resumes it, and returns at once if it is finished.

    origin        origin of the weights before this training, from their network file
    start         sha256 of that file
    validation    validation by which epochs are compared; None compares their losses
    save_seconds  seconds between two saves within an epoch
    """

    def __init__(
        self,
        folder: Path,
        task: TrainingTask,
        options: LoopOptions,
        origin: dict[str, Any],
        start: str = "",
        validation: Validation | None = None,
        reporter: Display | None = None,
        save_seconds: float = SAVE_SECONDS,
    ) -> None:
        self.folder, self.task, self.options = folder, task, options
        self._origin, self._start, self._validation = origin, start, validation
        self._reporter = reporter or Silent()
        self._save_seconds = save_seconds
        groups = [{"params": list(parameters), "lr": rate} for parameters, rate in task.rates()]
        self._rates = [rate for _, rate in task.rates()]
        self._optimizer = torch.optim.Adam(groups, weight_decay=options.weight_decay)
        half = options.precision == "fp16"
        self._scaler = torch.amp.GradScaler(next(task.network.parameters()).device.type, enabled=half)
        self._place = TrainingPosition()

    @cached_property
    def described(self) -> dict[str, Any]:
        """Everything that determines the run, as JSON values, except the number of epochs, which may be raised."""
        loop = {key: value for key, value in asdict(self.options).items() if key != "epochs"}
        validation = self._validation.described() if self._validation else None
        return {**self.task.described(), **loop, "weights": self._start, "validation": validation}

    def run(self, check: Callable[[], None] | None = None) -> TrainingResult:
        """Train to the last epoch.

        check  called before the first epoch of a new run

        Raises MismatchError if the folder contains a run with other options, StorageError if another process trains in
        it, InputError if a loss is not finite.
        """
        Folder(self.folder).make()
        with WriterLock(self.folder):
            self._begin(check)
            while self._place.epoch <= self.options.epochs:
                self._epoch()
        score = self._place.best if self._validation else None
        return TrainingResult(score, self._place.best_epoch, self.folder / BEST, self.folder / LAST)

    def _begin(self, check: Callable[[], None] | None) -> None:
        found = load_state(self.folder, self.task.trained, self._optimizer, self.described)
        if found is None:
            self._check_vacant()
            if check:
                check()
        else:
            self._reporter.say(f"{self.folder}: resumes in epoch {found.epoch}, after {found.done} {self.task.noun}")
        self._place = found or TrainingPosition()
        if self._place.scaler:
            self._scaler.load_state_dict(self._place.scaler)
        self._journal = TrainingLog(self.folder, self._place.log_bytes)
        if found is None:
            self._journal.write("run", **self.described)
            if self._validation:
                self._evaluate(0)
            self._save()

    def _check_vacant(self) -> None:
        taken = [name for name in (BEST, LAST) if (self.folder / name).exists()]
        if taken and not (self.folder / LOG).exists():
            raise InputError(f"{self.folder}: contains {taken[0]} but no {STATE}; give another folder, or move it away")

    def _save(self) -> None:
        self._place.log_bytes, self._place.scaler = self._journal.size, self._scaler.state_dict()
        save_state(self.folder, self.task.trained, self._optimizer, self._place, self.described)

    def _epoch(self) -> None:
        place, begun = self._place, time.monotonic() - self._place.seconds
        self._set_rates()
        if not len(place.plan):
            plan = self.task.plan(place.epoch, self._reporter)
            place.plan = plan.items
            self._journal.write("plan", epoch=place.epoch, items=len(plan.items), **plan.facts)
            place.seconds = time.monotonic() - begun
            self._save()
        self._steps(begun)
        self._finish_epoch(begun)

    def _set_rates(self) -> None:
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.options.decay ** (self._place.epoch - 1)

    def _steps(self, begun: float) -> None:
        place, saved = self._place, time.monotonic()
        total = len(place.plan)
        with self._reporter.bar(f"epoch {place.epoch} of {self.options.epochs}", self.task.noun) as progress:
            for batch in self._batches():
                loss = self._step(batch)
                place.losses.append(loss)
                place.done += len(batch)
                at = place.epoch - 1 + place.done / total
                self._journal.write("step", epoch=place.epoch, step=len(place.losses), at=round(at, 6), loss=loss)
                progress(place.done, total)
                if time.monotonic() - saved >= self._save_seconds:
                    place.seconds = time.monotonic() - begun
                    self._save()
                    saved = time.monotonic()

    def _batches(self) -> Iterator[list[_Loaded]]:
        """Yield the remaining items of the epoch with their pixels, in batches of one step."""
        place, epoch = self._place, self._place.epoch
        numbers = range(place.done, len(place.plan))
        plan = place.plan

        def load(number: int) -> _Loaded:
            return number, self.task.load(epoch, number, plan[number])

        batch: list[_Loaded] = []
        for loaded in threads.stream(load, numbers, threads.available_threads()):
            batch.append(loaded)
            if len(batch) == self.options.batch_size or loaded[0] == len(plan) - 1:
                yield batch
                batch = []

    def _step(self, batch: list[_Loaded]) -> float:
        """Do one step of the optimiser and return the mean loss of its items; gradients are computed item by item."""
        self._optimizer.zero_grad(set_to_none=True)
        losses = []
        for number, photographs in batch:
            loss = self.task.loss(self._place.plan[number], photographs)
            losses.append(self._finite(float(loss.detach())))
            self._scaler.scale(loss / len(batch) if self.task.averages else loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return math.fsum(losses) / len(losses)

    def _finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise InputError(
                f"{self.folder}: the loss is {loss} in epoch {self._place.epoch}; start again in another folder with a "
                "lower --learning-rate, or with --precision fp32"
            )
        return loss

    def _finish_epoch(self, begun: float) -> None:
        place, options = self._place, self.options
        mean = math.fsum(place.losses) / len(place.losses)
        rates = [group["lr"] for group in self._optimizer.param_groups]
        validated = self._validation and (place.epoch % options.every == 0 or place.epoch == options.epochs)
        if validated:
            self._evaluate(place.epoch)
        else:
            self._write(LAST, place.epoch)
            if not self._validation:
                self._consider(-mean, place.epoch)
        seconds = time.monotonic() - begun
        self._journal.write("epoch", epoch=place.epoch, loss=mean, rates=rates, seconds=round(seconds, 1))
        self._report(mean, seconds)
        self._place = TrainingPosition(epoch=place.epoch + 1, best=place.best, best_epoch=place.best_epoch)
        self._save()
        self._draw()

    def _evaluate(self, epoch: int) -> None:
        """Write the current network, validate it, and keep the best."""
        path = self._write(LAST, epoch)
        if self._validation is None:
            return
        report = self._validation.report(path, self.task.network.options.attention, self._reporter)
        score, beside, said = main_score(report), {}, ""
        self._consider(score, epoch)
        if self._validation.options.with_global:
            beside["global_score"] = main_score(self._validation.global_report(path, self._reporter))
            said = f", of the global descriptor {100 * beside['global_score']:.2f}"
        self._journal.write("validation", epoch=epoch, score=score, rows=report.as_dict(), **beside)
        best = f"(best in epoch {self._place.best_epoch})"
        self._reporter.say(f"epoch {epoch}: validation mAP {100 * score:.2f}{said} {best}")

    def _consider(self, score: float, epoch: int) -> None:
        if self._place.best is None or score > self._place.best:
            self._place.best, self._place.best_epoch = score, epoch
            self._write(BEST, epoch, finish=False)

    def _write(self, name: str, epoch: int, *, finish: bool = True) -> Path:
        network = self.task.network
        if finish and network.options.is_reduced_afterwards:
            with self._reporter.bar("learn the reduction", "images") as progress:
                finish_reduction(network, self.task.images, self.task.max_side, progress)
        about = {"epoch": epoch, **self.described}
        save_checkpoint(self.folder / name, network, {**self._origin, "training": about})
        return self.folder / name

    def _report(self, loss: float, seconds: float) -> None:
        left = (self.options.epochs - self._place.epoch) * seconds
        self._reporter.say(
            f"epoch {self._place.epoch} of {self.options.epochs}: loss {loss:.5f}, {_duration(seconds)}; "
            f"about {_duration(left)} left"
        )

    def _draw(self) -> None:
        try:
            draw_curves(self.folder)
        except DependencyError as error:
            if self._place.epoch == 2:
                self._reporter.say(str(error))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
