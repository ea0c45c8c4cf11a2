"""The training loop: seed, batches, steps, validation, selection, checkpoints, results."""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed

from avplatform.build import build_model, build_task
from avplatform.config import RunConfig, to_dict
from avplatform.console import Console
from avplatform.data import DataSource, open_data, train_loader
from avplatform.environment import make_accelerator
from avplatform.evaluation.evaluate import evaluate
from avplatform.evaluation.report import write_report
from avplatform.training.checkpoint import (
    checkpoint_steps,
    load_best,
    load_checkpoint,
    prune_checkpoints,
    save_best,
    save_checkpoint,
)
from avplatform.training.optim import build_optimizer, learning_rate
from avplatform.training.run_folder import RunFolder
from avplatform.training.step import optimisation_step
from models.av_model import AVModel
from models.errors import DataError, UsageError, counted
from tasks.contracts import Batch, Task


@dataclass
class Progress:
    """Where a run stands; it is saved with every checkpoint."""

    step: int = 0
    epoch: int = 1
    batch: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0  # of all processes that worked on the run one after the other
    cpu_seconds: float = 0.0
    validated: int = 0  # step of the last validation


class Run:
    """One training run: what it reads, the model, the optimiser and where it stands."""

    def __init__(self, config: RunConfig, *, console: Console | None = None) -> None:
        self.config = config
        self.accelerator: Accelerator = make_accelerator(cpu=config.cpu, precision=config.precision, threads=config.threads)
        main = self.accelerator.is_main_process
        self.console = console or Console(enabled=main)
        check_order_dependence(config, self.accelerator.num_processes)
        self.task: Task = build_task(config)
        self.data: DataSource = open_data(
            config.data, task=config.task, cache_dir=config.cache_dir, progress=self.console.note
        )
        for split in (*self.task.train_splits()[:1], "validation", "test"):
            self.data.split_name(split)  # what is missing is said before anything is trained
        self.loader = train_loader(
            self.data,
            self.task.train_splits(),
            batch_size=config.batch_size,
            seed=config.seed,
            shuffle=config.shuffle,
            drop_last=config.drop_last,
            order=config.batch_order,
            streaming=config.streaming,
            num_workers=config.num_workers,
            process_index=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
        )
        if len(self.loader) == 0:
            raise DataError(f"the training split has fewer clips than one batch of {config.batch_size}; lower --batch-size")
        set_seed(config.seed)
        model = build_model(config, self.task, self.data.spec)
        if config.precision == "float64":
            model = model.double()
        self.folder = self._open_folder()  # nothing is written before all of the above went well
        self.model, self.optimizer = self.accelerator.prepare(model, build_optimizer(model, config.optim))
        # Accelerate puts autocast into the model itself; a step asks for it, and evaluation must not have it.
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.total_steps = min(config.epochs * len(self.loader), config.max_steps or math.inf)
        self.progress = Progress()

    @property
    def bare_model(self) -> AVModel:
        """The model without its multi-process wrapper."""
        return self.accelerator.unwrap_model(self.model)

    @property
    def precision(self) -> str:
        """The arithmetic of training: "no" (float32), "bf16", "fp16" or "float64"."""
        return "float64" if self.config.precision == "float64" else str(self.accelerator.mixed_precision)

    def train(self) -> dict[str, Any]:
        """Train to the end, evaluate, write the run's files; return results.json's content."""
        self.console.note(self._heading())
        if self.config.resume:
            self._resume()
        self._clock = time.monotonic() - self.progress.seconds, cpu_time() - self.progress.cpu_seconds
        while self.progress.step < self.total_steps or self.progress.validated < self.progress.step:
            if self.progress.step < self.total_steps:
                self._epoch()
            self._measure_time()
            self._end_of_epoch()
        return self._finish()

    def _heading(self) -> str:
        config, kind = self.config, " (SYNTHETIC features)" if self.data.synthetic else ""
        return (
            f"{config.encoder} + {config.decoder} on {config.task} ({config.supervision}), data {self.data.name}{kind}: "
            f"{counted(len(self.loader), 'step')} an epoch, {self.bare_model.num_parameters:,} parameters, precision "
            f"{self.precision}, {counted(self.accelerator.num_processes, 'process')} of "
            f"{counted(torch.get_num_threads(), 'thread')}; all in {self.folder.path}"
        )

    def _epoch(self) -> None:
        """Train the rest of the current epoch, or up to the last step of the run."""
        config, progress = self.config, self.progress
        self.model.train()
        title = f"epoch {progress.epoch}/{config.epochs}"
        with self.console.bar(title, total=self._steps_of_epoch(), done=progress.batch) as bar:
            for global_size, micro in self._batches():
                lr = learning_rate(
                    config.schedule,
                    base_lr=config.optim.lr,
                    epoch=progress.epoch,
                    step=progress.step,
                    epochs=config.epochs,
                    total_steps=int(self.total_steps),
                )
                seed_step(config.seed, progress.step, self.accelerator.process_index)
                result = optimisation_step(
                    self.model,
                    self.task,
                    [batch for batch, _ in micro],
                    self.optimizer,
                    lr=lr,
                    clip_norm=config.optim.clip_norm,
                    accelerator=self.accelerator,
                    shares=[clips * self.accelerator.num_processes / global_size for _, clips in micro],
                    measure_norm=False,
                )
                losses = self._mean_over_processes({"loss": result.total, **prefixed(result.losses)})
                progress.step, progress.batch = progress.step + 1, progress.batch + 1
                for name, value in losses.items():
                    progress.sums[name] = progress.sums.get(name, 0.0) + value
                self._check_finite(losses)
                self._log({"event": "step", "epoch": progress.epoch, "step": progress.step, "lr": lr, **losses})
                bar.advance(loss=losses["loss"], lr=lr)
                if config.checkpointing.every and progress.step % config.checkpointing.every == 0:
                    self._checkpoint()
                if progress.step >= self.total_steps:
                    break

    def _steps_of_epoch(self) -> int:
        """Batches of this epoch that will be trained on: fewer than all where --max-steps ends the run in it."""
        left = self.total_steps - self.progress.step
        return int(min(len(self.loader), self.progress.batch + left))

    def _batches(self) -> Iterator[tuple[int, list[tuple[Batch, int]]]]:
        """Yield this process's share of each global batch, cut into micro-batches with their clip counts.

        A process that gets no clip of a small last batch computes one clip with weight 0, to keep step with the others.
        """
        for global_size, batch, clips in self.loader.epoch(self.progress.epoch, start=self.progress.batch):
            batch = batch.to(self.accelerator.device)
            parts = min(self.config.accumulation, max(1, clips))
            yield global_size, [(part, len(part) if clips else 0) for part in batch.split(parts)]

    def _end_of_epoch(self) -> None:
        """Validate, select, log, and checkpoint."""
        config, progress = self.config, self.progress
        means = {name: value / max(1, progress.batch) for name, value in progress.sums.items()}
        split = "test" if config.select_on == "test" else "validation"
        if not self._validation_is_due():
            self._log({"event": "epoch_without_validation", "epoch": progress.epoch, "step": progress.step, **means})
            self._next_epoch()
            return
        metrics = self._evaluate(split)
        scores = metrics.compute()
        score = scores[self.task.selection_metric]
        best = progress.best.get("value")
        better = best is None or config.select_on == "last" or score > best or (score == best and config.ties == "latest")
        record = {"event": "epoch", "epoch": progress.epoch, "step": progress.step, "split": split, **means, **scores}
        self._log(record)
        if better:
            progress.best = {"epoch": progress.epoch, "step": progress.step, "value": score}
            if self.accelerator.is_main_process:
                save_best(self.folder.checkpoints, self.bare_model, step=progress.step)
        self.console.epoch(record, metric=self.task.selection_metric, best=better)
        self._next_epoch()

    def _validation_is_due(self) -> bool:
        """Every `validate_every` epochs, and in an epoch that --max-steps ends."""
        cut = self.progress.batch < len(self.loader)
        return cut or (self.progress.epoch - 1) % self.config.validate_every == 0

    def _next_epoch(self) -> None:
        progress = self.progress
        progress.validated = progress.step
        if progress.batch >= len(self.loader):
            progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, {}
        self._checkpoint()

    def _finish(self) -> dict[str, Any]:
        """Evaluate the kept epoch on validation and test and write results, plots and the model folder."""
        best = self.progress.best
        load_best(self.folder.checkpoints, self.bare_model, step=best["step"])
        metrics = {split: self._evaluate(split) for split in ("validation", "test")}
        return write_report(self, metrics)

    def _evaluate(self, split: str) -> Any:
        arrays = self.data.split(split)
        with self.console.bar(f"score {split}", total=len(arrays)) as bar:
            return evaluate(
                self.bare_model,
                self.task,
                arrays,
                accelerator=self.accelerator,
                batch_size=self.config.eval_batch_size,
                on_batch=bar.advance,
            )

    def _measure_time(self) -> None:
        started, cpu_started = self._clock
        self.progress.seconds, self.progress.cpu_seconds = time.monotonic() - started, cpu_time() - cpu_started

    def _checkpoint(self) -> None:
        self._measure_time()
        if self.accelerator.is_main_process:
            state = vars(self.progress).copy()
            save_checkpoint(self.folder.checkpoints, model=self.bare_model, optimizer=self.optimizer, state=state)
            prune_checkpoints(self.folder.checkpoints, self.config.checkpointing.keep, self.progress.best.get("step"))
        self.accelerator.wait_for_everyone()

    def _open_folder(self) -> RunFolder:
        """Make (or reopen) the run's folder on the main process and tell the others."""
        config, name = self.config, f"{self.config.task}-{self.config.encoder}-{self.config.decoder}"
        answer: list[Any] = [None]
        if self.accelerator.is_main_process:
            try:
                folder = RunFolder(config.resume) if config.resume else RunFolder.create(config.output_dir, name=name)
                if not config.resume:
                    folder.write_config(to_dict(config))
                answer = [str(folder.path)]
            except Exception as error:
                answer = [error]
        broadcast_object_list(answer)
        if isinstance(answer[0], Exception):
            raise answer[0]
        return RunFolder(answer[0])

    def _resume(self) -> None:
        steps = checkpoint_steps(self.folder.checkpoints)
        if steps:
            path = self.folder.checkpoints / str(steps[-1])
            state = load_checkpoint(path, model=self.bare_model, optimizer=self.optimizer)
            self.progress = Progress(**state)
        if self.accelerator.is_main_process:
            self.folder.rewind(self.progress.step, validated=self.progress.validated)
        self._log({"event": "resume", "step": self.progress.step, "resumed_from_step": self.progress.step})
        self.console.note(f"resumed from step {self.progress.step}")

    def _mean_over_processes(self, values: dict[str, Any]) -> dict[str, float]:
        stacked = torch.stack([v.detach().double() for v in values.values()])
        stacked = self.accelerator.reduce(stacked, reduction="mean")
        return dict(zip(values, stacked.tolist(), strict=True))

    def _check_finite(self, losses: dict[str, float]) -> None:
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            raise DataError(
                f"{', '.join(bad)} became NaN or infinite in step {self.progress.step}; lower --optim.lr, set "
                f"--optim.clip-norm, or look at the data. The last whole state is in {self.folder.checkpoints}"
            )

    def _log(self, record: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            self.folder.log(record)


def check_order_dependence(config: RunConfig, processes: int) -> None:
    """Refuse PSP's stale pair targets where a step's clips do not pass through one process in one piece.

    Raises:
        UsageError: several processes, or several micro-batches a step.
    """
    if getattr(config.task_config, "pair_target", "clean") == "official" and (processes > 1 or config.accumulation > 1):
        raise UsageError(
            "task_config.pair_target 'official' keeps rests of earlier batches by position, which needs whole batches in one "
            "process; use one process and accumulation 1, or pair_target clean"
        )


def cpu_time() -> float:
    """CPU seconds that this process has used, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def seed_step(seed: int, step: int, process: int) -> None:
    """Set the random stream of one step: a function of the seed, the step and the process, so that it resumes exactly."""
    torch.manual_seed((seed * 1_000_003 + step) * 4099 + process)


def prefixed(losses: dict[str, Any]) -> dict[str, Any]:
    """Name the loss terms as they stand in metrics.jsonl."""
    return {f"loss_{name}": value for name, value in losses.items()}


def finished_results(folder: RunFolder) -> dict[str, Any] | None:
    """Return the results of a finished run, or None."""
    try:
        return json.loads(folder.results_file.read_text())
    except (OSError, json.JSONDecodeError):
        return None
