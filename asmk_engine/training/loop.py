"""The training loop: epochs of planned items, steps of a few items each, and a folder from which a run resumes.

    state.safetensors   the position of the run (`state.py`)
    log.jsonl           every step, epoch and validation (`log.py`)
    curves.png          plot of the log (`curves.py`)
    last.safetensors    the network after the last finished epoch
    best.safetensors    the network of the best validation; without validation, of the lowest mean loss of an epoch

On a CPU a resumed run is equal to an uninterrupted one, bit by bit: random choices depend only on seed, epoch and item
number, and network, optimiser and the plan of the epoch are stored. Of several processes each trains on an equal share
of every step; the first one alone writes the folder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from asmk_engine import threads
from asmk_engine.errors import DependencyError, InputError
from asmk_engine.iteration import Display, Silent
from asmk_engine.storage.folder import Folder, WriterLock
from asmk_engine.training.curves import draw_curves
from asmk_engine.training.log import LOG, TrainingLog
from asmk_engine.training.loop_options import LoopOptions, make_optimizer
from asmk_engine.training.processes import Processes
from asmk_engine.training.state import STATE, TrainingPosition, load_state, save_state
from asmk_engine.training.task import EpochPlan, EpochValidation, StepBatch, TrainingTask
from asmk_engine.training.validation import main_score

LAST, BEST = "last.safetensors", "best.safetensors"
SAVE_SECONDS = 300.0


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
    processes     the processes of the training
    workers       number of threads that decode images; None for one for each processor
    """

    def __init__(
        self,
        folder: Path,
        task: TrainingTask,
        options: LoopOptions,
        origin: dict[str, Any],
        start: str = "",
        validation: EpochValidation | None = None,
        reporter: Display | None = None,
        save_seconds: float = SAVE_SECONDS,
        processes: Processes | None = None,
        workers: int | None = None,
    ) -> None:
        self.folder, self.task, self.options = folder, task, options
        self._origin, self._start, self._validation = origin, start, validation
        self._save_seconds, self._workers = save_seconds, threads.thread_count(workers)
        self._processes = processes or Processes()
        self._processes.share(range(options.batch_size))
        self._reporter = reporter if reporter and self._processes.is_first else Silent()
        groups = task.groups()
        self._rates, self._schedule = [group.rate for group in groups], options.rates_over_time
        self._learning = [one for group in groups for one in group.parameters]
        self._optimizer = make_optimizer(groups, options)
        half = options.precision == "fp16"
        self._scaler = torch.amp.GradScaler(self._learning[0].device.type, enabled=half)
        self._place = TrainingPosition()

    @cached_property
    def described(self) -> dict[str, Any]:
        """Everything that determines the run, as JSON values, except the number of epochs, which may be raised."""
        validation = self._validation.described() if self._validation else None
        return {**self.task.described(), **self.options.described(), "weights": self._start, "validation": validation}

    def run(self, check: Callable[[], None] | None = None) -> TrainingResult:
        """Train to the last epoch.

        check  called before the first epoch of a new run

        Raises MismatchError if the folder contains a run with other options, StorageError if another process trains in
        it, InputError if a loss is not finite.
        """
        Folder(self.folder).make()
        with WriterLock(self.folder) if self._processes.is_first else nullcontext():
            self._begin(check)
            while self._place.epoch <= self.options.epochs:
                self._epoch()
        score = self._place.best if self._validation else None
        return TrainingResult(score, self._place.best_epoch, self.folder / BEST, self.folder / LAST)

    def _begin(self, check: Callable[[], None] | None) -> None:
        found = load_state(self.folder, self.task.trained, self._optimizer, self.described)
        self._processes.wait()  # until all know whether there is a state
        self._place = found or TrainingPosition()
        if self._place.scaler:
            self._scaler.load_state_dict(self._place.scaler)
        if self._processes.is_first:
            self._begin_writing(found, check)

    def _begin_writing(self, found: TrainingPosition | None, check: Callable[[], None] | None) -> None:
        if found is None:
            self._check_vacant()
            if check:
                check()
        else:
            self._reporter.say(f"{self.folder}: resumes in epoch {found.epoch}, after {found.done} {self.task.noun}")
        self._journal = TrainingLog(self.folder, self._place.log_bytes)
        if found is None:
            self._log("run", **self.described)
            if self._validation:
                self._evaluate(0)
            self._save()

    def _check_vacant(self) -> None:
        taken = [name for name in (BEST, LAST) if (self.folder / name).exists()]
        if taken and not (self.folder / LOG).exists():
            raise InputError(f"{self.folder}: contains {taken[0]} but no {STATE}; give another folder, or move it away")

    def _log(self, kind: str, **content: Any) -> None:
        if self._processes.is_first:
            self._journal.write(kind, **content)

    def _save(self) -> None:
        if not self._processes.is_first:
            return
        self._place.log_bytes, self._place.scaler = self._journal.size, self._scaler.state_dict()
        save_state(self.folder, self.task.trained, self._optimizer, self._place, self.described)

    def _epoch(self) -> None:
        place, begun = self._place, time.monotonic() - self._place.seconds
        if not len(place.plan):
            plan = self._plan()
            place.plan = plan.items
            self._log("plan", epoch=place.epoch, items=len(plan.items), **plan.facts)
            place.seconds = time.monotonic() - begun
            self._save()
        self.task.trainee.begin_epoch(place.epoch)
        self._steps(begun)
        self._finish_epoch(begun)

    def _plan(self) -> EpochPlan:
        """Plan an epoch; of several processes all have whole steps only."""
        plan = self.task.plan(self._place.epoch, self._reporter)
        if self._processes.count == 1:
            return plan
        whole = len(plan.items) // self.options.batch_size * self.options.batch_size
        if not whole:
            raise InputError(
                f"an epoch has {len(plan.items)} {self.task.noun}, a step {self.options.batch_size}; several processes "
                "need one whole step: lower the size of a step, or train in one process"
            )
        return EpochPlan(plan.items[:whole], plan.facts)

    def _steps(self, begun: float) -> None:
        place, saved = self._place, time.monotonic()
        total = len(place.plan)
        with self._reporter.bar(f"epoch {place.epoch} of {self.options.epochs}", self.task.noun) as progress:
            for batch in self._batches():
                self._set_rates(place.epoch - 1 + place.done / total)
                loss = self._step(batch)
                place.losses.append(loss)
                place.done += batch.total
                at = place.epoch - 1 + place.done / total
                self._log("step", epoch=place.epoch, step=len(place.losses), at=round(at, 6), loss=loss)
                progress(place.done, total)
                if time.monotonic() - saved >= self._save_seconds:
                    place.seconds = time.monotonic() - begun
                    self._save()
                    saved = time.monotonic()

    def _set_rates(self, at: float) -> None:
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self._schedule.factor(at)

    def _batches(self) -> Iterator[StepBatch]:
        """Yield this process's share of the remaining steps of the epoch, with their pixels."""
        plan, epoch, size = self._place.plan, self._place.epoch, self.options.batch_size
        steps = [range(begin, min(begin + size, len(plan))) for begin in range(self._place.done, len(plan), size)]
        shares = [self._processes.share(step) for step in steps]

        def load(number: int) -> list[Any]:
            return self.task.load(epoch, number, plan[number])

        loaded = threads.stream(load, chain.from_iterable(shares), self._workers)
        for step, share in zip(steps, shares, strict=True):
            items = [plan[number] for number in share]
            yield StepBatch(epoch, share.start, len(step), items, list(islice(loaded, len(share))))

    def _step(self, batch: StepBatch) -> float:
        """Do one step of the optimiser and return the mean loss of its items."""
        self._optimizer.zero_grad(set_to_none=True)
        values = []
        for part in self.task.parts(batch):
            values.append(part.values)
            self._scaler.scale(part.loss).backward()
        losses = self._processes.gather(torch.cat(values).float()).tolist()
        mean = self._finite(math.fsum(losses) / len(losses))
        self._processes.sum_gradients(self._learning)
        if self.options.clip:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._learning, self.options.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.task.end_step()
        return mean

    def _finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise InputError(
                f"{self.folder}: the loss is {loss} in epoch {self._place.epoch}; start again in another folder with a "
                "lower --learning-rate, or with --precision fp32"
            )
        return loss

    def _finish_epoch(self, begun: float) -> None:
        place = self._place
        mean = math.fsum(place.losses) / len(place.losses)
        last = (len(place.plan) - 1) // self.options.batch_size * self.options.batch_size
        self._set_rates(place.epoch - 1 + last / len(place.plan))  # a run that resumes here has done no step
        rates = [group["lr"] for group in self._optimizer.param_groups]
        if self._processes.is_first:
            self._judge(mean)
        seconds = time.monotonic() - begun
        self._log("epoch", epoch=place.epoch, loss=mean, rates=rates, seconds=round(seconds, 1))
        self._report(mean, seconds)
        self._place = TrainingPosition(epoch=place.epoch + 1, best=place.best, best_epoch=place.best_epoch)
        self._save()
        self._processes.wait()
        if self._processes.is_first:
            self._draw()

    def _judge(self, mean: float) -> None:
        """Write the network of a finished epoch, and keep the best."""
        epoch = self._place.epoch
        if self._validation and (epoch % self.options.every == 0 or epoch == self.options.epochs):
            self._evaluate(epoch)
            return
        self._write(LAST, epoch)
        if not self._validation:
            self._consider(-mean, epoch)

    def _evaluate(self, epoch: int) -> None:
        """Write the current network, validate it, and keep the best."""
        path = self._write(LAST, epoch)
        if self._validation is None:
            return
        report = self._validation.report(path, self.task.trainee.extractor, self._reporter)
        score, beside, said = main_score(report), {}, ""
        self._consider(score, epoch)
        if (whole := self._validation.global_score(path, self._reporter)) is not None:
            beside, said = {"global_score": whole}, f", of the global descriptor {100 * whole:.2f}"
        self._log("validation", epoch=epoch, score=score, rows=report.as_dict(), **beside)
        best = f"(best in epoch {self._place.best_epoch})"
        self._reporter.say(f"epoch {epoch}: validation mAP {100 * score:.2f}{said} {best}")

    def _consider(self, score: float, epoch: int) -> None:
        if self._place.best is None or score > self._place.best:
            self._place.best, self._place.best_epoch = score, epoch
            self._write(BEST, epoch, finish=False)

    def _write(self, name: str, epoch: int, *, finish: bool = True) -> Path:
        trainee = self.task.trainee
        if finish:
            trainee.finish(self.task.images, self.task.max_side, self._reporter)
        trainee.write(self.folder / name, {**self._origin, "training": {"epoch": epoch, **self.described}})
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
