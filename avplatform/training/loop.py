"""The training loop: batches, steps, validation, selection of the best epoch, checkpoints."""

from __future__ import annotations

import importlib
import math
import signal
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import torch

from avplatform.base.console import Console
from avplatform.base.processes import (
    error_on_all,
    explain,
    mean_over_processes,
    on_main,
    share_buffers,
)
from avplatform.base.stopping import Stopped, StopSignals
from avplatform.config.run import RunConfig
from avplatform.config.values import to_dict
from avplatform.data.reading.loader import Share
from avplatform.evaluation.evaluate import evaluate
from avplatform.models.errors import counted
from avplatform.tasks.batch import Batch, Moment
from avplatform.tasks.contracts import Task
from avplatform.tasks.metrics import Metrics, selection_name, selection_score
from avplatform.training.checkpoint import load_best, save_best
from avplatform.training.fit import monotony
from avplatform.training.optim import learning_rate
from avplatform.training.progress import Progress
from avplatform.training.setup import Setup
from avplatform.training.sharing import StepProcesses
from avplatform.training.state import restore_state, save_state
from avplatform.training.step import optimisation_step, unchanged_buffers
from avplatform.training.tracking import start_trackers
from avplatform.training.weights import model_weights

MOST_SKIPPED = 20
"""Steps in a row that may be skipped for NaN; after that the weights themselves are broken."""


class Run:
    """One training run: its setup (data, model, optimiser, folder) and its progress."""

    def __init__(self, config: RunConfig, *, console: Console | None = None) -> None:
        setup = self.setup = Setup(config, console=console)
        self.progress = Progress()
        self.config, self.task, self.folder = setup.config, setup.task, setup.folder
        self._said: str | None = None  # what the last validations said of all clips alike,
        self._times = 0  # so many times in a row
        self.accelerator, self.console = self.setup.accelerator, self.setup.console

    def train(self) -> dict[str, Any]:
        """Train to the end, evaluate, write the run's files; return the content of results.json.

        Raises:
            Stopped: a signal asked the run to stop; its state is saved.
            DataError: the loss or the gradient is NaN, the disk is full, or a process was lost.
        """
        try:
            with StopSignals() as self._signals:
                return self._train()
        except Exception as error:
            raise explain(error, self.accelerator, compiled=self.config.compile) from None
        finally:
            self._close_trackers()
            self.folder.unlock()

    def _close_trackers(self) -> None:
        """Close the trackers; a failure here (a full disk) must not hide how the run ended."""
        for tracker in getattr(self.accelerator, "trackers", []):
            try:
                tracker.finish()
            except Exception as error:
                self.console.note(f"the tracker {tracker.name} could not be closed: {error}")

    def _train(self) -> dict[str, Any]:
        config = self.config
        self.console.note(self.setup.heading())
        if config.resume:
            self.progress = restore_state(self.setup)
            step = self.progress.step
            self._log({"event": "resume", "step": step, "resumed_from_step": step})
            self.console.note(f"resumed from step {step}")
        for line in self.setup.remarks():
            self.console.note(line)
        start_trackers(
            self.accelerator,
            config.trackers,
            self.folder,
            project=config.project,
            config=to_dict(config),
            step=self.progress.step,
            validated=self.progress.validated,
        )
        self._started = time.monotonic() - self.progress.seconds
        self._cpu_started = time.process_time() - self.progress.cpu_seconds
        if self.setup.start is not None and self.progress.step == 0:
            self._checkpoint()  # a resume reads the weights that the run started from here
        progress, total = self.progress, self.setup.total_steps
        if not total and not progress.best:  # a model without parameters
            self._end_of_epoch()
        # A run that was stopped after its last step but before the validation still has that to do.
        while progress.validated < progress.step or (progress.step < total and not self._waited()):
            if progress.step < total:
                self._epoch()
            self._measure_time()
            self._end_of_epoch()
        return self._finish()

    def _epoch(self) -> None:
        """Train the rest of the current epoch, or up to the last step of the run."""
        config, progress = self.config, self.progress
        self.setup.model.train()
        title = f"epoch {progress.epoch}/{config.epochs}"
        with self.console.bar(title, total=self._steps_of_epoch(), done=progress.batch) as bar:
            for share in self._shares():
                losses, lr, stop = self._step(share)
                # The first step need not wait for drawings and cards; but hours later, a checkout
                # that was edited in the meantime could no longer be imported.
                importlib.import_module("avplatform.training.report")
                bar.advance(loss=losses["loss"], lr=lr)
                due = config.checkpointing.every and progress.step % config.checkpointing.every == 0
                if due or stop:
                    self._checkpoint()
                if stop:
                    self._stop()
                if progress.step >= self.setup.total_steps:
                    break

    def _step(self, share: Share) -> tuple[dict[str, float], float, bool]:
        """Take and log one optimiser step; return its losses, learning rate and whether to stop."""
        config, progress = self.config, self.progress
        lr = learning_rate(
            config.schedule,
            base_lr=self.setup.base_lr,
            epoch=progress.epoch,
            step=progress.step,
            epochs=config.epochs,
            total_steps=self.setup.total_steps,
        )
        seed_step(config.seed, progress.step, self.accelerator.process_index)
        task, micro, told = self._micro_batches(share)
        result = optimisation_step(
            self.setup.model,
            task,
            [batch for batch, _ in micro],
            self.setup.optimizer,
            lr=lr,
            clip_norm=config.optim.clip_norm,
            accelerator=self.accelerator,
            shares=[n * self.accelerator.num_processes / share.global_size for _, n in micro],
            measure_norm=False,
            skip_nonfinite=config.on_nan == "skip",
            told=told,
        )
        values: dict[str, Any] = {
            "loss": result.total,
            **{f"loss_{name}": value for name, value in result.losses.items()},
            # A signal may reach one process alone; with the losses, all of them learn of it.
            "stop": float(self._signals.received > 0),
        }
        losses = mean_over_processes(self.accelerator, values)
        stop = losses.pop("stop") > 0
        progress.step, progress.batch = progress.step + 1, progress.batch + 1
        if self.setup.average is not None and not result.skipped:
            self.setup.average.update(self.setup.trained_model, progress.step)
        self._account(losses, lr, skipped=result.skipped)
        return losses, lr, stop

    def _account(self, losses: dict[str, float], lr: float, *, skipped: bool) -> None:
        """Log a step, count it, and end a run whose losses have become NaN."""
        progress = self.progress
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        record = {"epoch": progress.epoch, "step": progress.step, "lr": lr}
        if skipped:
            progress.skipped += 1
            progress.skipped_in_a_row += 1
            good = {name: value for name, value in losses.items() if name not in bad}
            self._log({"event": "skipped_step", **record, **good})
        elif not bad:
            progress.skipped_in_a_row = 0
            progress.summed += 1
            for name, value in losses.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value
            self._log({"event": "step", **record, **losses})
            self._track("train", {**losses, "lr": lr})
        # With fp16 the gradient scaler skips steps by itself while it searches for its scale;
        # a loss that is NaN is not its doing.
        stops = bad and (not skipped or self.config.on_nan == "stop")
        if stops or progress.skipped_in_a_row >= MOST_SKIPPED:
            what = ", ".join(bad) or "the gradient"
            often = f" ({MOST_SKIPPED} steps in a row)" if not stops else ""
            raise error_on_all(
                f"{what} became NaN or infinite in step {progress.step}{often}; lower --optim.lr, "
                "set --optim.clip-norm, skip single bad steps with --on-nan skip, or check the "
                f"data. The last good checkpoint is in {self.folder.checkpoints}"
            )

    def _steps_of_epoch(self) -> int:
        """Return the number of batches of this epoch; --max-steps may end the run within it."""
        left = self.setup.total_steps - self.progress.step
        return min(len(self.setup.loader), self.progress.batch + left)

    def _shares(self) -> Iterator[Share]:
        """Yield this process's shares of the rest of the epoch's batches, on its device."""
        loader, progress = self.setup.loader, self.progress
        for share in loader.epoch(progress.epoch, start=progress.batch):
            batch = share.batch.to(self.accelerator.device)
            batch.moment = Moment(progress.epoch, progress.batch, len(loader))
            yield share._replace(batch=batch)

    def _micro_batches(self, share: Share) -> tuple[Task, list[tuple[Batch, int]], dict[str, Any]]:
        """Return the task, the micro-batches and what the model is told in a step.

        Each micro-batch comes with the number of clips that count. A process that gets no clip of a
        small last batch computes one clip with weight 0, because all processes must take every step
        together.
        """
        together = StepProcesses(self.accelerator, share)
        with torch.no_grad(), unchanged_buffers(self.setup.model):
            batch = self.task.prepare(self.setup.model, share.batch, together)
        task, told = self.task, dict[str, Any]()
        if (asked := self.setup.asked) is not None:
            task, batch, told = asked.choose(share.batch, batch, self.progress.step, together)
        parts = min(self.config.accumulation, max(1, share.clips))
        counted_parts = [(p, p.clips if share.clips else 0) for p in batch.split(parts)]
        return task, counted_parts, told

    def _end_of_epoch(self) -> None:
        """Validate if due, keep the weights if they are the best, log, and save a checkpoint."""
        config, progress = self.config, self.progress
        means = {name: value / max(1, progress.summed) for name, value in progress.sums.items()}
        split = "test" if config.select_on == "test" else "validation"
        where = {"epoch": progress.epoch, "step": progress.step}
        if not self._validation_is_due():
            self._log({"event": "epoch_without_validation", **where, **means})
            self._next_epoch()
            return
        weights = self._scored_weights()
        metrics = self._evaluate(split)
        scores, metric = metrics.figures(), self.task.metric_of(metrics, config.select_by)
        score = selection_score(scores, metric)
        assert score is not None
        # Whole videos are soon right; a model that goes on to fit them finds events everywhere.
        latest = config.ties == "latest" and metrics.timed
        best = progress.best.get("value")
        better = (
            best is None or config.select_on == "last" or score > best or (score == best and latest)
        )
        if split == "validation":
            self.task.validated(progress.epoch, metrics)
        record = {"event": "epoch", **where, "split": split, **means, **scores}
        self._log(record)
        self._track(split, scores)
        if config.score_test:
            tested = scores if split == "test" else self._evaluate("test").figures()
            self._log({"event": "test_epoch", **where, **tested})
        if better:
            progress.best = {"epoch": progress.epoch, "step": progress.step, "value": score}
            folder, step = self.folder.checkpoints, progress.step
            on_main(self.accelerator, lambda: save_best(folder, weights, step=step))
        self.console.epoch(record, chosen_by=(selection_name(metric), score), best=better)
        said = metrics.constant()
        self._said, self._times = said, self._times + 1 if said == self._said else 1
        if said and self._times == 3:
            self.console.note(monotony(said))
        self._next_epoch()

    def _validation_is_due(self) -> bool:
        """Return whether to validate now.

        Validation runs every `validate_every` epochs, in an epoch that --max-steps cuts short, and
        in the last epoch if that one is kept (`select_on` is "last").
        """
        cut = self.progress.batch < len(self.setup.loader)
        kept = self.config.select_on == "last" and self.progress.step >= self.setup.total_steps
        return cut or kept or (self.progress.epoch - 1) % self.config.validate_every == 0

    def _waited(self) -> bool:
        """Return whether no epoch was better than the best one for as long as `patience` says."""
        patience, best = self.config.patience, self.progress.best
        gone, every = self.progress.epoch - 2, self.config.validate_every
        scored = gone - gone % every + 1  # the last epoch that was validated
        over = bool(patience and best and scored - best["epoch"] >= patience)
        if over:
            since = counted(patience, "epoch")
            self.console.note(f"training ends: {since} went by without a better one (patience)")
        return over

    def _next_epoch(self) -> None:
        """Save a checkpoint, in the next epoch if this one is complete."""
        progress = self.progress
        progress.validated = progress.step
        if progress.batch >= len(self.setup.loader):
            progress.epoch, progress.batch = progress.epoch + 1, 0
            progress.sums, progress.summed = {}, 0
        self._checkpoint()

    def _finish(self) -> dict[str, Any]:
        """Evaluate the kept epoch on validation and test, and write the report and model folder."""
        weights = load_best(self.folder.checkpoints, step=self.progress.best["step"])
        self.setup.bare_model.load_state_dict(weights)
        metrics = {split: self._evaluate(split) for split in ("validation", "test")}
        before = None
        settled = self.task.settle(metrics["validation"])
        if settled is not self.task:
            before = {split: values.figures() for split, values in metrics.items()}
            self.setup.settle(settled)
            self.task = settled
            metrics = {split: self._evaluate(split) for split in metrics}
        from avplatform.training.report import write_report  # imported before, see `_epoch`

        content = write_report(self.setup, self.progress, metrics, before=before)
        if self.progress.skipped:
            steps = counted(self.progress.skipped, "step")
            self.console.note(f"skipped {steps} whose loss or gradient was NaN or infinite")
        return content

    def _scored_weights(self) -> dict[str, torch.Tensor]:
        """Load the current weights (with EMA: their average) into the scored model; return them."""
        share_buffers(self.accelerator, self.setup.trained_model)
        weights = model_weights(self.setup.trained_model)
        if self.setup.average is not None:
            weights = {**weights, **self.setup.average.weights()}
        if self.setup.bare_model is not self.setup.trained_model:
            self.setup.bare_model.load_state_dict(weights)
        return weights

    def _evaluate(self, split: str) -> Metrics:
        """Score the scored model on a split; a signal may stop this, see `advance`."""
        arrays = self.setup.data.split(split)

        def advance(clips: int) -> None:
            bar.advance(clips)
            # A single process can leave a long validation, which a resume repeats from its start.
            # Several processes stop together, after their next step.
            if (
                self._signals.received
                and self.accelerator.num_processes == 1
                and self.progress.validated < self.progress.step
            ):
                self._checkpoint()
                self._stop()

        with self.console.bar(f"score {split}", total=len(arrays)) as bar:
            return evaluate(
                self.setup.bare_model,
                self.task,
                arrays,
                accelerator=self.accelerator,
                batch_size=self.config.eval_batch_size,
                on_batch=advance,
            )

    def _measure_time(self) -> None:
        """Write the wall and CPU time so far into the progress."""
        self.progress.seconds = time.monotonic() - self._started
        self.progress.cpu_seconds = time.process_time() - self._cpu_started

    def _stop(self) -> NoReturn:
        """Raise Stopped; a process that had no signal itself reports SIGTERM."""
        number = self._signals.received or signal.SIGTERM
        raise Stopped(number, self.progress.step, str(self.folder.path))

    def _checkpoint(self) -> None:
        self._measure_time()
        save_state(self.setup, self.progress)

    def _track(self, group: str, values: dict[str, Any]) -> None:
        named = {f"{group}/{name}": value for name, value in values.items()}
        self.accelerator.log(named, step=self.progress.step)

    def _log(self, record: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            self.folder.log(record)


def seed_step(seed: int, step: int, process: int) -> None:
    """Seed torch for one step from seed, step and process, so that a resumed run is exact."""
    torch.manual_seed((seed * 1_000_003 + step) * 4099 + process)
