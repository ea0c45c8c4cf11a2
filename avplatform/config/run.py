"""The configuration of a run: one set of dataclasses behind Python, YAML and the command line.

Names are the same everywhere: `OptimConfig(lr=1e-4)`, `optim: {lr: 1.0e-4}`, `--optim.lr 1e-4`. The
options of the chosen encoder, decoder and task are `encoder_config`, `decoder_config` and
`task_config`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

from avplatform.config.optim import OptimConfig, ScheduleConfig
from avplatform.models.checks import at_least, check_choices, in_range, no_urls
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.errors import UsageError, counted, nearest, unknown_name
from avplatform.tasks.metrics import selecting_figures
from avplatform.tasks.registry import TASKS

FOLLOW = ("batch_size", "epochs", "optim.lr", "validate_every")
"""Options of training that follow the number of clips where nobody sets them."""
LABELS = "labels.embeddings"
"""The option for which a run learns label embeddings where nobody sets it and words are unknown."""
TRACKERS = {"csv": None, "tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}
"""Experiment trackers by name, with the package that each one needs."""


class Change(NamedTuple):
    """What a change of an option's value means; metadata of the option's field."""

    resumable: bool = False
    """a resumed run may change the value"""
    compared: bool = True
    """runs with different values were trained differently: they are not seeds of one training"""
    repeated: bool = True
    """a sweep refuses a finished run with another value, because its results would differ"""
    of_command: bool = False
    """the option tells one command what to do: files and sweeps do not set it"""


HOW_IT_RUNS = Change(resumable=True, compared=False, repeated=False)
THIS_COMMAND = Change(compared=False, repeated=False, of_command=True)


def option(default: Any, change: Change) -> Any:
    """Return the dataclass field of an option; a dataclass as default makes a group of options."""
    kind = "default_factory" if isinstance(default, type) else "default"
    return field(**{kind: default}, metadata={"change": change})


def option_names(**change: bool) -> frozenset[str]:
    """Return the names of the options whose `Change` has these values.

    Examples:
        >>> sorted(option_names(of_command=True))
        ['config', 'dry_run', 'output_dir', 'resume']
    """
    known = {f.name: f.metadata.get("change", Change()) for f in dataclasses.fields(RunConfig)}
    return frozenset(
        name for name, found in known.items() if change.items() <= found._asdict().items()
    )


@dataclass(kw_only=True)
class CheckpointConfig:
    """Checkpoints to resume from."""

    every: int = 0
    """save one after this many optimiser steps; 0: at the end of every epoch"""
    keep: int = 2
    """number of checkpoints to keep, besides the best weights"""

    def __post_init__(self) -> None:
        at_least(self, "every", 0)
        at_least(self, "keep", 1)


@dataclass(kw_only=True)
class LabelConfig:
    """Label embeddings, for decoders that query with label texts (LEAP); see docs/labels.md."""

    embeddings: str = "glove-50d"
    """glove-50d, a file, {glove,bert,clip,clap,sentence,transformers}:NAME, learned, learned:DIM"""
    pooling: Literal["default", "cls", "mean"] = "default"
    """for bert, sentence, transformers: first token or mean over tokens; default: the kind's own"""
    prompts: tuple[str, ...] = ()
    """sentences with {} for the text, whose embeddings are averaged ("the sound of {}")"""
    asked_share: float = 1.0
    """share of the classes in no clip of a step's batch whose texts the step asks for; 1: all"""
    distractors: int = 0
    """texts that each training step also asks for and that no clip holds; 0: none"""
    distractor_texts: Literal["words", "random"] = "words"
    """words of the source of the embeddings, or random directions (a file has no words)"""

    def __post_init__(self) -> None:
        check_choices(self)
        in_range(self, "asked_share", 0, 1)
        at_least(self, "distractors", 0)
        self.prompts = tuple(self.prompts)
        if self.distractor_texts != "words" and not self.distractors:
            raise UsageError(
                f"LabelConfig.distractor_texts is '{self.distractor_texts}', but distractors is 0; "
                "give their number, or leave it out"
            )

    @property
    def how(self) -> dict[str, Any]:
        """How the source embeds texts: arguments of `open_source` and `label_embeddings`."""
        pooling = None if self.pooling == "default" else self.pooling
        return {"pooling": pooling, "prompts": self.prompts}


@dataclass(kw_only=True)
class RunConfig:
    """All options of a run."""

    task: str = next(iter(TASKS))
    """avel (events both heard and seen, AVE) or avvp (audio and visual events separately, LLP)"""
    encoder: str = next(iter(TASKS.values())).default_encoder
    """audio-visual encoder, see `avplatform list`; the default depends on the task"""
    decoder: str = next(iter(DECODERS))
    """event decoder, such as leap; `avplatform list` shows all"""
    supervision: str = "full"
    """avel: full or weak; avvp: pseudo (segment pseudo-labels) or weak (video labels only)"""
    data: str = option("demo", Change(compared=False))
    """demo (built-in, synthetic), a data folder, or a hub dataset id"""
    cache_dir: str | None = option(None, HOW_IT_RUNS)
    """folder for cached data; default: the data folder, $AVPLATFORM_CACHE or ~/.cache/avplatform"""
    init_from: str | None = None
    """run, model folder or hub id whose weights the model starts from, as far as they fit"""
    init_scale: float = 1.0
    """weight matrices of init_from begin at this multiple of their values (docs/training.md)"""
    freeze: Literal["none", "encoder"] = "none"
    """encoder: stem and encoder keep the weights of init_from; the decoder alone is trained"""
    held_out: tuple[str, ...] = ()
    """classes to train without (leap); `avplatform eval --held-out` then scores them zero-shot"""
    seed: int = option(1, Change(compared=False))
    """seed of weights, batches and dropout"""
    epochs: int = option(14, Change(resumable=True))
    """passes over the training split"""
    max_steps: int | None = option(None, Change(resumable=True))
    """end training after this many optimiser steps, then validate, test and save"""
    batch_size: int = 32
    """clips per optimiser step, over all micro-batches and (but see batch_scope) all processes"""
    batch_scope: Literal["global", "process"] = "global"
    """what batch_size counts: clips of all processes, or per process (a step grows with them)"""
    num_workers: int = option(0, HOW_IT_RUNS)
    """threads that read ahead; 0: the main thread reads, fast enough for all but streaming"""
    output_dir: str | None = option(None, THIS_COMMAND)
    """folder of the run; default: runs/<task>-<encoder>-<decoder>-<time>"""
    resume: str | None = option(None, THIS_COMMAND._replace(resumable=True))
    """run folder to go on from; needs no other flag"""
    streaming: bool = False
    """stream the training split from its shards instead of mapping it"""
    preset: str | None = option(None, Change(compared=False))
    """published recipe, such as han-mmil-avvp-weak-official; see `avplatform list`"""
    config: str | None = option(None, THIS_COMMAND)
    """YAML file or run folder to take options from; flags override it"""
    cpu: bool = option(False, HOW_IT_RUNS)
    """stay on the CPU"""
    dry_run: bool = option(False, THIS_COMMAND._replace(resumable=True))
    """print the resolved configuration, shapes, parameter count and memory, then exit"""
    precision: Literal["auto", "no", "bf16", "fp16", "float64"] = option(
        "auto", Change(resumable=True)
    )
    """of training; auto: accelerate's setting, else bf16 if the CPU has it; float64: weights too"""
    accumulation: int = 1
    """micro-batches per optimiser step (less memory, same step)"""
    threads: int = option(0, HOW_IT_RUNS)
    """CPU threads per process; 0: $OMP_NUM_THREADS, or cores / processes on this machine"""
    eval_batch_size: int = option(64, Change(compared=False))
    """clips per evaluation batch; batches are the same for any number of processes"""
    select_on: Literal["validation", "test", "last"] = "validation"
    """what selects the epoch that is kept; test is marked in the results and the card"""
    select_by: str = ""
    """figures by whose mean the epoch is selected, as event_A+event_V; default: the task's own"""
    patience: int = option(0, Change(resumable=True))
    """end training after so many epochs without a better one; 0: never"""
    ties: Literal["latest", "first"] = "latest"
    """which of two equally good epochs is kept"""
    validate_every: int = 1
    """epochs between validations; the first epoch is always validated"""
    shuffle: bool = True
    """shuffle the training clips every epoch"""
    drop_last: bool = False
    """drop the last, smaller batch of an epoch"""
    batch_order: Literal["default", "psp-full", "psp-weak"] = "default"
    """default: by shuffle and drop_last; psp-*: batches of PSP's published loaders, rest dropped"""
    ema: float | None = None
    """decay (as 0.999) of a running average of the weights, which is scored and kept; none: off"""
    compile: bool = False
    """train with torch.compile (faster on accelerators; a CPU needs a C++ compiler)"""
    on_nan: Literal["stop", "skip"] = option("stop", Change(resumable=True, compared=False))
    """if the loss or gradient is NaN or infinite: stop the run, or skip and count the step"""
    score_test: bool = option(False, Change(resumable=True, compared=False))
    """also score test after each validation, for the record (selects nothing, doubles scoring)"""
    trackers: tuple[str, ...] = option((), HOW_IT_RUNS)
    """experiment trackers: csv, tensorboard, wandb, trackio; none by default"""
    project: str = option("avplatform", HOW_IT_RUNS)
    """project name under which trackers group runs"""
    save_plots: bool = option(True, HOW_IT_RUNS)
    """write curves, per-class bars and example timelines"""
    bank_clips: int | None = option(None, HOW_IT_RUNS)
    """training clips in the bank for labels never trained on; default: 400 with leap; 0: none"""
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(name="late_decay", after=0.8)
    )
    checkpointing: CheckpointConfig = option(CheckpointConfig, HOW_IT_RUNS)
    labels: LabelConfig = field(default_factory=LabelConfig)
    encoder_config: Any = None
    """options of the encoder"""
    decoder_config: Any = None
    """options of the decoder"""
    task_config: Any = None
    """options of the task's losses and decisions"""

    def __post_init__(self) -> None:
        self.left_open: frozenset[str] = frozenset()
        """Options of `FOLLOW` that nobody set, so that they may follow the number of clips."""
        self.labels_left_open = False
        """Whether nobody set the source of label embeddings."""
        check_choices(self)
        no_urls(self)
        counts = ("epochs", "batch_size", "accumulation", "eval_batch_size", "validate_every")
        at_least(self, counts, 1)
        at_least(self, ("seed", "num_workers", "threads", "patience"), 0)
        if self.bank_clips is not None:
            at_least(self, "bank_clips", 0)
        if self.max_steps is not None:
            at_least(self, "max_steps", 1)
        if self.accumulation > self.batch_size:
            raise UsageError(
                f"accumulation is {self.accumulation} but a step has only "
                f"{counted(self.batch_size, 'clip')}"
            )
        if self.ema is not None and not (isinstance(self.ema, (int, float)) and 0 <= self.ema < 1):
            raise UsageError(
                f"ema is {self.ema!r}; it must be a decay in [0, 1), such as 0.999, or none"
            )
        scale = self.init_scale
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale <= 1:
            raise UsageError(
                f"init_scale is {scale!r}; it must lie between 0 (not 0 itself) and 1, such as 0.5"
            )
        self.trackers, self.held_out = tuple(self.trackers), tuple(self.held_out)
        for name in self.trackers:
            if name not in TRACKERS:
                raise unknown_name("tracker", name, TRACKERS)
        if self.batch_order != "default" and not (self.shuffle and self.drop_last):
            raise UsageError(
                f"batch_order {self.batch_order} shuffles and drops the remainder; "
                "set shuffle and drop_last"
            )
        if self.init_from is None:
            given = {
                "freeze": self.freeze != "none",
                "optim.head_lr": self.optim.head_lr,
                "init_scale": self.init_scale != 1,
            }
            for name in (name for name, value in given.items() if value):
                raise UsageError(
                    f"{name} is for a model that starts from another one; give --init-from, "
                    f"or leave {name} out"
                )
        if self.freeze != "none" and self.init_scale != 1:
            raise UsageError(
                f"freeze {self.freeze} keeps the weights of init_from as they are, but init_scale "
                f"is {self.init_scale}; leave one of them out"
            )
        check_names(self.task, self.encoder, self.decoder)
        one_of_supervision(self.task, self.supervision)
        for name in selecting_figures(self.select_by):
            if name not in (figures := TASKS[self.task].all_figures()):
                raise unknown_name("figure of select_by", name, figures)
        if self.patience and self.select_on == "last":
            raise UsageError(
                "patience waits for a better epoch, but select_on 'last' compares none; "
                "leave one of them out"
            )
        if self.seed > 2**32 - 1:
            raise UsageError(f"seed is {self.seed}; it must lie between 0 and {2**32 - 1}")
        if self.task_config is not None and self.task_config.supervision != self.supervision:
            raise UsageError(
                f"task_config.supervision is '{self.task_config.supervision}' but supervision is "
                f"'{self.supervision}'; give --supervision alone"
            )


def check_names(task: str | None, encoder: str | None, decoder: str | None) -> None:
    """Raise UsageError, with the nearest known name, if a given name is not registered."""
    for kind, name, table in (
        ("task", task, TASKS),
        ("encoder", encoder, ENCODERS),
        ("decoder", decoder, DECODERS),
    ):
        if name is not None and name not in table:
            raise unknown_name(kind, name, table)


def one_of_supervision(task: str, supervision: str) -> None:
    """Raise UsageError unless the task knows this supervision."""
    known = TASKS[task].supervisions
    if supervision not in known:
        raise UsageError(
            f"supervision '{supervision}' is not one of {task}'s"
            f"{nearest(supervision, known)} (known: {', '.join(known)})"
        )


def config_class(task: str, encoder: str, decoder: str) -> type[RunConfig]:
    """Return RunConfig with the option types of this task, encoder and decoder filled in."""
    check_names(task, encoder, decoder)
    return _config_class(ENCODERS[encoder].Config, DECODERS[decoder].Config, TASKS[task].Config)


@cache
def _config_class(encoder: type, decoder: type, task: type) -> type[RunConfig]:
    parts = {"encoder_config": encoder, "decoder_config": decoder, "task_config": task}
    fields = [(name, kind, field(default_factory=kind)) for name, kind in parts.items()]
    cls = dataclasses.make_dataclass("RunConfig", fields, bases=(RunConfig,), kw_only=True)
    cls.__doc__ = RunConfig.__doc__
    return cls


def default_config(
    task: str | None = None,
    encoder: str | None = None,
    decoder: str | None = None,
    supervision: str | None = None,
) -> RunConfig:
    """Return the default configuration of a cell (task, encoder, decoder, supervision).

    The defaults were found to train well on the built-in data. They are no paper's recipe; those
    are presets (`avplatform.config.presets`).
    """
    task = task or next(iter(TASKS))
    check_names(task, None, None)
    kind = TASKS[task]
    encoder, decoder = encoder or kind.default_encoder, decoder or next(iter(DECODERS))
    supervision = supervision or kind.supervisions[0]
    cls = config_class(task, encoder, decoder)
    one_of_supervision(task, supervision)
    task_config = kind.Config(
        supervision=supervision, **kind.task_options(encoder, decoder, supervision)
    )
    # No option of an encoder or decoder depends on the classes.
    adapter = kind(task_config, classes=("-",))
    training = dict(kind.training)
    if "optim" in training:
        training["optim"] = OptimConfig(**training["optim"])
    of_encoder = {
        **adapter.encoder_options(encoder),
        **DECODERS[decoder].encoder_options(ENCODERS[encoder]),
    }
    return cls(
        task=task,
        encoder=encoder,
        decoder=decoder,
        supervision=supervision,
        task_config=task_config,
        encoder_config=ENCODERS[encoder].Config(**of_encoder),
        decoder_config=DECODERS[decoder].Config(**adapter.decoder_options(encoder, decoder)),
        **training,
    )
