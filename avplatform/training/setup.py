"""What a run needs before its first step: accelerator, data, model, optimiser and locked folder."""

from __future__ import annotations

import copy

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed

from avplatform.base.console import Console
from avplatform.base.machine import describe, make_accelerator
from avplatform.base.processes import on_main
from avplatform.config.build import open_run, untimed_splits, with_learned_labels
from avplatform.config.run import RunConfig
from avplatform.config.values import to_dict
from avplatform.data import train_loader
from avplatform.data.reading.restricted import clips_per_class
from avplatform.models.av_model import COMPANION, AVModel, count_parameters
from avplatform.models.config import options_of
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.runs.folder import RunFolder
from avplatform.tasks.batch import TrainingClips
from avplatform.tasks.contracts import Task
from avplatform.training.asked import asked_labels
from avplatform.training.checkpoint import checkpoint_steps
from avplatform.training.fit import advice, fitted, length, training_clips, unmeasured
from avplatform.training.length import check_length, total_steps
from avplatform.training.optim import build_optimizer, scaled_lr
from avplatform.training.start import Start, new_rate, prepare_start, start_model
from avplatform.training.tracking import check_trackers
from avplatform.training.weights import WeightAverage

LEAVING = 10.0
"""Seconds that a resume waits for earlier processes of the run, which may still be saving."""


class Setup:
    """The accelerator, task, data, model, optimiser and folder of a run.

    There are three views of the model. `model` is what the training step calls, with the wrappers
    of Accelerate. `trained_model` is the same model without wrappers. `bare_model` is what is
    scored and saved: the trained model, or a copy of it with weights that are loaded before each
    validation.
    """

    def __init__(self, config: RunConfig, *, console: Console | None = None) -> None:
        self.config = config
        self.accelerator: Accelerator = make_accelerator(
            cpu=config.cpu, precision=config.precision, threads=config.threads
        )
        self.console = console or Console(enabled=self.accelerator.is_main_process)
        check_order_dependence(config, self.accelerator.num_processes)
        check_trackers(config.trackers)
        set_seed(config.seed)
        streamed = "training streams the data, but evaluation always reads mapped arrays"
        self.task, self.data, model = open_run(
            config, progress=self.console.note, why_mapped=streamed if config.streaming else ""
        )
        config, followed = fitted(config, self.task, self.data)
        config, learned = with_learned_labels(config, model)
        self.followed = [line for line in (followed, learned) if line]
        self.config = config
        self.step_clips = config.batch_size
        if config.batch_scope == "process":
            self.step_clips *= self.accelerator.num_processes
        self.loader = train_loader(
            self.data,
            self.task.train_splits(),
            batch_size=self.step_clips,
            seed=config.seed,
            shuffle=config.shuffle,
            drop_last=config.drop_last,
            order=config.batch_order,
            streaming=config.streaming,
            num_workers=config.num_workers,
            process_index=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
        )
        # A stream from the Hub is not counted, but data may say of which classes it has no clip.
        model.config.training_clips = dict.fromkeys(self.task.unseen, 0) | clips_per_class(
            self.data, self.task.train_splits(), mapped=not config.streaming
        )
        if len(self.loader) == 0:
            raise DataError(
                f"the training split has fewer clips than one batch of {self.step_clips}; "
                "lower --batch-size"
            )
        self._said = self.task.check_training_clips(
            TrainingClips(
                data=self.data.name,
                checksum=self.data.checksum,
                batch_size=self.step_clips,
                ids=self.loader.clip_ids,
            )
        )
        self._made_longer = check_length(config, len(self.loader))
        self.asked = asked_labels(config, self.task, self.data, model)
        self.start = self._start(model)
        self._prepare(model)
        self.base_lr = scaled_lr(config.optim, self.step_clips)
        trained = count_parameters(self.trained_model) > 0
        self.total_steps = total_steps(config, len(self.loader)) if trained else 0
        self.clips = training_clips(self.task, self.data)
        self.folder = self._open_folder()  # last, so that a failure above writes nothing

    def _start(self, model: AVModel) -> Start | None:
        """Give the model the weights that it starts from; a resumed run has its own already."""
        config = self.config
        if config.resume and config.init_from:
            folder = RunFolder(config.resume)
            if checkpoint_steps(folder.checkpoints):
                start = Start.read(folder.start_file)
                prepare_start(model, config, start)
                return start
        return start_model(model, config)

    def _prepare(self, model: AVModel) -> None:
        """Build the optimiser, the weight average, and the views of the model.

        The scored model is a copy where training averages, compiles or shards the trained one.
        """
        config = self.config
        sharded = self.accelerator.distributed_type == DistributedType.FSDP
        needs_copy = config.ema is not None or config.compile or sharded
        replica = copy.deepcopy(model) if needs_copy else None
        if config.compile:
            model.compile()
        new, scale = new_rate(model, config, self.start)
        self._heads = ""
        if new and config.optim.head_lr is None:
            self._heads = (
                f"the new layers of single classes learn at {scale:g} times the learning rate; "
                "--optim.head-lr sets another"
            )
        optimizer = build_optimizer(model, config.optim, new=new, scale=scale)
        if count_parameters(model):
            self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        else:  # torch refuses to share the gradients of nothing among processes
            self.model = model.to(self.accelerator.device)
            self.optimizer = self.accelerator.prepare(optimizer)
        # Accelerate builds autocast into the model's forward. Evaluation must run without it, and a
        # training step enters it explicitly.
        self.trained_model: AVModel = self.accelerator.unwrap_model(
            self.model, keep_fp32_wrapper=False
        )
        self.average = (
            WeightAverage(self.trained_model, config.ema) if config.ema is not None else None
        )
        self.bare_model: AVModel = (
            self.trained_model if replica is None else replica.to(self.accelerator.device)
        )

    def settle(self, task: Task) -> None:
        """Score and save the model with the decisions of this task; see `Task.settle`."""
        self.task, self.bare_model.config.task_config = task, options_of(task.config)

    @property
    def precision(self) -> str:
        """The precision of training: "no" (float32), "bf16", "fp16" or "float64"."""
        double = self.config.precision == "float64"
        return "float64" if double else str(self.accelerator.mixed_precision)

    @property
    def parameters(self) -> int:
        """Return the number of parameters, frozen ones included and a companion's left out."""
        named = self.bare_model.named_parameters()
        return sum(p.numel() for name, p in named if not name.startswith(COMPANION))

    def _frozen(self) -> str:
        frozen = self.parameters - self.bare_model.num_parameters
        text = f" ({frozen:,} of them frozen)" if frozen else ""
        if (companion := self.bare_model.companion) is not None:
            text += f" and {count_parameters(companion):,} of guides that are not saved with it"
        return text

    def heading(self) -> str:
        """Return the line that says what is about to be trained, printed before the first step."""
        config, kind = self.config, " (SYNTHETIC features)" if self.data.synthetic else ""
        processes, threads = self.accelerator.num_processes, torch.get_num_threads()
        lr = f"learning rate {self.base_lr:g}"
        if self.base_lr != config.optim.lr:
            lr += (
                f" ({config.optim.lr_scaling} scaling of {config.optim.lr:g} "
                f"for {config.optim.lr_batch_size} clips per step)"
            )
        return (
            f"{config.encoder} + {config.decoder} on {config.task} ({config.supervision}), "
            f"data {self.data.name}{kind}: "
            f"{length(self.clips, len(self.loader), self.total_steps)}, each of "
            f"{self.step_clips} clips over all processes, {lr}, "
            f"{self.parameters:,} parameters{self._frozen()}, precision {self.precision}, "
            f"{counted(processes, 'process')} with {counted(threads, 'thread')} each; "
            f"everything is written to {self.folder.path}"
        )

    def remarks(self) -> list[str]:
        """Return what a person should know before the first step, one sentence a line."""
        lines = [*self.followed, *self._said]
        if untimed := untimed_splits(self.data.spec, self.task):
            lines.append(unmeasured(untimed, self.task.whole_metric))
        if self.total_steps:
            lines += advice(self.config, self.clips, len(self.loader), self.total_steps)
        else:
            lines.append("this model has nothing to train; it is scored and saved as it is")
        if self.start and self.start.loaded:
            lines += [*self.start.lines(), *filter(None, [self._heads])]
        return lines

    def _open_folder(self) -> RunFolder:
        """Create (or reopen) and lock the run's folder on the main process; return it on all."""
        config, opened = self.config, list[RunFolder]()

        def make() -> str:
            if config.resume:
                folder = RunFolder(config.resume)
            else:
                name = f"{config.task}-{config.encoder}-{config.decoder}"
                folder = RunFolder.create(config.output_dir, name=name)
            folder.lock(wait=LEAVING if config.resume else 0.0)
            opened.append(folder)
            if self._made_longer is not None:
                folder.set_results_aside(self._made_longer)
            if self.start is not None and self.start.loaded:
                folder.write_start(self.start.to_json())
            # A changed option of a resumed run (epochs, trackers) also holds for its next resume.
            folder.write_config(to_dict(config) | {"resume": None})
            processes = self.accelerator.num_processes
            launch = {**describe(), "processes": processes, "precision": self.precision}
            folder.write_environment(launch)
            return str(folder.path)

        path = on_main(self.accelerator, make)
        return opened[0] if opened else RunFolder(path)


def check_order_dependence(config: RunConfig, processes: int) -> None:
    """Check that stateful pair targets (`pair_target` "official") see each batch whole.

    These targets keep values of earlier batches by position, so every batch has to pass through one
    process in one piece.

    Raises:
        UsageError: there are several processes, or several micro-batches per step.
    """
    if getattr(config.task_config, "pair_target", "clean") == "official" and (
        processes > 1 or config.accumulation > 1
    ):
        raise UsageError(
            "task_config.pair_target 'official' keeps values of earlier batches by position, which "
            "needs whole batches in one process; use one process and accumulation 1, or "
            "pair_target clean"
        )
