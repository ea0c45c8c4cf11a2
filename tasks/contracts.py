"""Base class of tasks: the meaning of labels, the loss, the decisions and the metrics.

Axes: B clips, T segments, C classes. Splits are called train, validation and test everywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from torch import Tensor, nn

from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import STREAMS, Encoding, Needs, Options, Parse, Publication
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.errors import UsageError
from avplatform.tasks.batch import Batch, Processes, TrainingClips
from avplatform.tasks.cells import Cells
from avplatform.tasks.events import FromEvents
from avplatform.tasks.metrics import Analysis, Metrics
from avplatform.tasks.options import check_parts
from avplatform.tasks.unseen import UnseenRule

Odd = tuple[str, str, int, str]
"""Odd labels of a clip: level ("error" or "warning"), kind, position among the clips, and text."""


def named_classes(classes: Sequence[str], indices: np.ndarray) -> str:
    """Return the names of class indices for a message; indices out of range are allowed."""
    return ", ".join(
        classes[i] if 0 <= i < len(classes) else f"class {i}" for i in indices.tolist()
    )


@dataclass(kw_only=True)
class TaskConfig:
    """Options that every task has; a task adds its own in a subclass."""

    supervision: str = "full"
    """one of the task's `supervisions`"""


class Task:
    """Base class of all tasks: the meaning of labels, the loss, the decisions and the metrics.

    A subclass is built from its own config dataclass (`Config`, keyword-only, validated) and works
    for any list of classes. It sets the class variables that have no value here, and defines
    `loss`, `decide` and `metrics`. Class variables with a value are facts for lists, cards and
    presets, and may be omitted.

    Args:
        config: an instance of `Config`.
        classes: the classes of a segment, in the order of the labels in the data.
        texts: label texts of all classes by spelling; `config.label_texts` chooses a spelling. If
            the default spelling is missing, the names of the classes are used, with spaces for
            underscores.
    """

    name: ClassVar[str]  # set by `register_task`
    Config: ClassVar[type] = TaskConfig
    default_encoder: ClassVar[str]
    supervisions: ClassVar[tuple[str, ...]] = ("full",)  # the first is the default
    selection_metric: ClassVar[str]  # key of `Metrics.compute()` that picks the best epoch
    whole_metric: ClassVar[str] = ""  # the same, for splits whose events have no times
    shown: ClassVar[tuple[str, ...]] = ()  # main metrics, for tables with little room
    figures: ClassVar[tuple[str, ...]] = ()  # other keys of `Metrics.compute()` to select by
    streams: ClassVar[Literal["apart", "joint"] | None] = None  # see `Needs.streams`
    training: ClassVar[Options] = {}  # defaults of its runs that differ from those of other tasks
    paper: ClassVar[Publication | None] = None
    title: ClassVar[str] = ""
    about: ClassVar[str] = ""  # what its models answer, one sentence without its full stop
    decisions: ClassVar[str] = "see the task"  # what `decide` returns, for the code in cards
    cells: ClassVar[Cells] = Cells()
    rule: ClassVar[type[UnseenRule] | None] = None  # decides labels that no training met
    from_events: ClassVar[FromEvents | None] = None  # how listed events become labels
    classes: tuple[str, ...]
    texts: dict[str, tuple[str, ...]]
    unseen: tuple[str, ...] = ()
    config: Any

    def __init__(
        self,
        config: Any,
        *,
        classes: Sequence[str],
        texts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.config, self.classes = config, tuple(classes)
        self.texts = {spelling: tuple(found) for spelling, found in (texts or {}).items()}

    @classmethod
    def all_figures(cls) -> tuple[str, ...]:
        """Return the names of the figures by which an epoch may be selected."""
        return tuple(dict.fromkeys((cls.selection_metric, *cls.shown, *cls.figures)))

    def train_splits(self) -> tuple[str, ...]:
        """Return the names of the splits for training (AVE's weak setting adds "background")."""
        return ("train",)

    @property
    def needs(self) -> Needs:
        """What the task reads from a decoder's prediction."""
        return Needs(asker=self.name, streams=self.streams, supervision=self.config.supervision)

    def model_classes(
        self, decoder: str | None = None, encoder: str | None = None
    ) -> tuple[list[str], list[str]]:
        """Return the classes that a model predicts, and their label texts in the same order.

        Args:
            decoder: the name of the model's decoder; None: return all classes.
            encoder: the name of the model's encoder; None: the task's default.
        """
        return list(self.classes), list(self.class_texts())

    def class_texts(self) -> tuple[str, ...]:
        """Return the label texts of all classes in the spelling that `config.label_texts` names.

        Raises:
            UsageError: the data have no texts in this spelling.
        """
        spelling = getattr(self.config, "label_texts", "")
        if spelling in self.texts:
            return self.texts[spelling]
        if spelling != getattr(type(self.config), "label_texts", ""):
            known = ", ".join(self.texts) or "none but the names of the classes"
            raise UsageError(
                f"task_config.label_texts is '{spelling}', but the data have no such texts "
                f"(they have: {known}); leave it out"
            )
        return tuple(name.replace("_", " ") for name in self.classes)

    @classmethod
    def task_options(cls, encoder: str, decoder: str, supervision: str) -> dict[str, Any]:
        """Return task options that this task prefers for a cell, before those of the user."""
        return {}

    def encoder_options(self, encoder: str) -> dict[str, Any]:
        """Return encoder options that this task prefers, before those of the user."""
        return {}

    def decoder_options(self, encoder: str, decoder: str) -> dict[str, Any]:
        """Return decoder options that this task fixes or prefers, before those of the user."""
        if self.streams is None:
            return {}
        return DECODERS[decoder].options_for(self.needs, ENCODERS[encoder])

    def check(self, encoder: str, decoder: str, encoder_config: Any, decoder_config: Any) -> None:
        """Raise UsageError if the options of encoder, decoder and task contradict each other.

        By default, the encoder and decoder are checked if the task sets `streams`.
        """
        if self.streams is not None:
            parts = ENCODERS[encoder], DECODERS[decoder]
            check_parts(*parts, encoder_config, decoder_config, self.needs)

    @classmethod
    def odd_labels(cls, classes: Sequence[str], labels: Mapping[str, np.ndarray]) -> Iterator[Odd]:
        """Yield the clips whose labels contradict each other.

        Args:
            classes: the classes of the store.
            labels: the known labels by name, [N, ...].
        """
        yield from ()

    def check_held_out(self, encoder: str) -> None:
        """Raise UsageError if the task cannot be trained with some of its classes held out."""

    def check_training_labels(self, names: Iterable[str]) -> None:
        """Raise DataError if the data lack a label that training reads (before a run)."""

    def check_training_clips(self, clips: TrainingClips) -> list[str]:
        """Return what to say of the training clips before a run, one sentence each.

        Raises:
            DataError: the task lacks something for a training clip, or has it for other data.
        """
        return []

    def companion(self, model: AVModelConfig) -> nn.Module | None:
        """Return what is trained beside a new model of this config; most tasks need nothing.

        It reads the same features, `(audio, visual, motion)`, in training only, and returns a
        dictionary that is added to the `aux` of the encoding, for the losses. Its attribute
        `lr_scales`, if it has one, gives factors of the learning rate, see `build_optimizer`.
        """
        return None

    def prepare(self, model: nn.Module, batch: Batch, processes: Processes) -> Batch:
        """Return the batch of a training step with labels or clips that are made in every step.

        It is called before the batch is split into micro-batches, without gradient and with the
        model in training mode, whose buffers it leaves as they are (the training loop restores
        them); by default the batch is returned unchanged.

        Args:
            model: the model that is trained, called as `model(audio, visual, motion)`.
            batch: this process's clips; `batch.moment` is set.
            processes: gathers values of the clips of all processes.
        """
        return batch

    def asked(self) -> Tensor | None:
        """Return which of the model's label texts are asked for in a training step.

        These are positions among `model_classes`, int64 [C']; None: all of them. A decoder that
        does not read label texts is not concerned.
        """
        return None

    def loss(self, parse: Parse, encoding: Encoding, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted loss terms, each a mean over the batch; their sum is minimised."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """Return what the losses keep from step to step, for checkpoints; most keep nothing."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""

    def decide(self, parse: Parse) -> dict[str, Tensor]:
        """Turn predictions into decisions, one tensor per name, each with B rows."""
        raise NotImplementedError

    def metrics(self) -> Metrics:
        """Return a new accumulator."""
        raise NotImplementedError

    def metric_of(self, metrics: Metrics, asked: str = "") -> str:
        """Return the figure that selects an epoch by the clips that were scored.

        Args:
            metrics: of the clips; where their events have no times, only whole clips are compared.
            asked: figures joined by +, in place of the task's own; empty: the task's own.
        """
        if not metrics.timed:
            return self.whole_metric
        return asked or self.selection_metric

    def settle(self, validation: Metrics) -> Self:
        """Return the task with the options of its decisions that are picked after training.

        They become part of the saved model. By default nothing is picked, and the task itself is
        returned.

        Args:
            validation: the metrics and evidence of the kept epoch on validation.
        """
        return self

    def validated(self, epoch: int, validation: Metrics) -> None:
        """Note what `settle` will need of an epoch; called after each validation in training.

        What is noted belongs to `state`, so that a resumed run settles as an uninterrupted one.
        """

    def label_origins(self) -> dict[str, dict[str, Any]]:
        """Return how the labels were made that training reads beside those of the data, by option.

        Call it after training or `check_training_clips`; {}: there are none.
        """
        return {}

    def evidence(self, parse: Parse, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what is compared with thresholds, by name, each with B rows; it may be empty."""
        return {}

    def unseen_rule(self) -> UnseenRule | None:
        """Return how labels are decided that the model was never trained on; None: as others."""
        return None if self.rule is None else self.rule(self.config, self.classes)

    def analysis(self) -> Analysis | None:
        """Return the analysis of this task; None: it has no intervals and thresholds."""
        return None

    def with_classes(self, names: Sequence[str], texts: Sequence[str] | None = None) -> Self:
        """Return a copy of the task that trains on, decides among and scores these events only.

        Args:
            names: some of the task's own events, or labels that it does not know.
            texts: their label texts; None: the names.
        """
        other = copy.copy(self)
        other.classes = tuple(names)
        other.texts = {getattr(self.config, "label_texts", ""): tuple(texts or names)}
        return other

    def events(self, decisions: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return decisions as event maps by stream ("audio", "visual", "av").

        By default these are the decisions that have the name of a stream.

        Shape: stream -> bool [B, T, C], C without background.
        """
        return {name: decisions[name].bool() for name in STREAMS if name in decisions}

    def probabilities(self, parse: Parse) -> dict[str, Tensor]:
        """Return the probability of each event, for timelines, in the streams of `events`.

        Shape: stream -> [B, T, C] in [0, 1].
        """
        raise UsageError(
            f"the task {self.name} makes no timelines: it does not define probabilities"
        )

    def truth(self, batch: Batch) -> dict[str, Tensor]:
        """Return the labels in the form of `events`; if {}, no pictures of clips are made."""
        return {}

    def tracks(self, decisions: dict[str, Tensor], batch: Batch) -> list[dict[str, Any]]:
        """Return what a timeline shows, one dictionary per clip.

        Each is `{"clip_id": str, "classes": [...], "tracks": {stream: {"truth": bool [T, C],
        "prediction": bool [T, C]}}}`.
        """
        found, truth = self.events(decisions), self.truth(batch)
        maps = {s: (truth[s].cpu().numpy(), found[s].cpu().numpy()) for s in found if s in truth}
        classes = [name.replace("_", " ") for name in self.classes]
        return [
            {
                "clip_id": clip_id,
                "classes": classes,
                "tracks": {s: {"truth": t[i], "prediction": p[i]} for s, (t, p) in maps.items()},
            }
            for i, clip_id in enumerate(batch.clip_id)
            if maps
        ]
