"""The base class of the readers of official checkpoints, and their helpers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from avplatform.models.av_model import AVModel
from avplatform.models.checkpoint.pickle_values import printable
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import DataError, counted

MOST_LISTED = 10
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class MissingTensorError(DataError):
    """A tensor is missing whose shape is needed to build the model."""


@dataclass(kw_only=True)
class Labels:
    """The task, classes and label texts of a model, which official checkpoints do not hold."""

    task: str = ""
    classes: list[str]
    label_texts: list[str] = field(default_factory=list)
    task_config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """An option of the model, and where its value came from."""

    name: str
    value: Any
    origin: Literal["given", "default", "read from the file"]
    why: str = ""

    @property
    def shown(self) -> str:
        """The value as it is printed."""
        if isinstance(self.value, bool):
            return "yes" if self.value else "no"
        return str(self.value)

    def __str__(self) -> str:
        return f"{self.name} {self.shown}: {self.origin}" + (f" ({self.why})" if self.why else "")


class Reader:
    """Base class of the readers: one per published model.

    A reader builds our model from the shapes of the tensors, and maps their names to ours.

    Attributes:
        name: the name of the published model.
        title: its name with its venue, for messages.
        takes: options that shapes do not tell, or that are checked against the file.
        rules: (pattern, replacement) pairs that turn an official name into ours.
        unused_patterns: patterns of keys that the published forward pass never reads.
        not_in_checkpoint: our names that the checkpoint does not hold.
        reshaped: official name -> ours, where the same values have another shape.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    takes: ClassVar[tuple[str, ...]] = ()
    rules: tuple[tuple[str, str], ...] = ()
    unused_patterns: tuple[str, ...] = ()
    not_in_checkpoint: tuple[str, ...] = ()
    reshaped: Mapping[str, str] = {}

    def __init__(
        self,
        *,
        heads: int | None = None,
        blocks: int | None = None,
        norm: Literal["post", "pre"] | None = None,
        weak: bool | None = None,
        label_embeddings: Tensor | None = None,
        assignment: Literal["soft", "hard"] | None = None,
        joint_assignment: Literal["soft", "hard"] | None = None,
        adjacency: bool | None = None,
        window: int | None = None,
        power_norm: bool | None = None,
    ) -> None:
        self.heads, self.blocks, self.norm, self.weak = heads, blocks, norm, weak
        self.assignment, self.joint_assignment = assignment, joint_assignment
        self.adjacency, self.window, self.power_norm = adjacency, window, power_norm
        self.label_embeddings = label_embeddings
        self.settings: dict[str, Setting] = {}

    def look(self, tensors: Mapping[str, Tensor]) -> None:
        """Set which of several published variants a file holds."""

    def build(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Build our module with the sizes that are inferred from the shapes."""
        raise NotImplementedError

    def read(self, tensors: Mapping[str, Tensor], labels: Labels) -> nn.Module:
        """Return our model with the weights of a state dict, in their precision or float32.

        Float32 is used where the precision of the weights is lower.

        Raises:
            DataError: missing or unknown keys or wrong shapes, listed by name; or another number of
                classes than the task has.
        """
        tensors = clean(tensors)
        self.look(tensors)
        keys = self.key_map(tensors)
        strangers = set(tensors) - set(keys) - set(self.unused(tensors))
        try:
            with torch.device("meta"):  # compare shapes before memory is allocated
                own = self.build(tensors, labels).state_dict()
        except MissingTensorError as error:
            raise self._wrong({"missing": [str(error)], "unknown": sorted(strangers)}) from None
        for name in set(self.reshaped) & set(tensors):
            if (ours := keys[name]) in own and own[ours].numel() == tensors[name].numel():
                tensors[name] = tensors[name].reshape(own[ours].shape)
        fitting = [
            name
            for name, ours in keys.items()
            if ours in own and own[ours].shape == tensors[name].shape
        ]
        self._check(tensors, keys, own, strangers, fitting)
        model = self.build(tensors, labels)
        dtype = torch.float32
        for name in fitting:
            dtype = torch.promote_types(dtype, tensors[name].dtype)
        model = model.to(dtype)
        model.load_state_dict(
            {keys[name]: tensors[name] for name in fitting}, strict=not self.not_in_checkpoint
        )
        return model.eval()

    def model(self, labels: Labels, **config: Any) -> AVModel:
        """Return a model of these labels; the other fields of its config are given."""
        config |= dict(task=labels.task, classes=labels.classes, task_config=labels.task_config)
        return AVModel(AVModelConfig(**config), label_embeddings=self.label_embeddings)

    def unused(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Return the keys that the published forward pass never reads."""
        return [
            name for name in tensors if any(re.fullmatch(p, name) for p in self.unused_patterns)
        ]

    def key_map(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Return {official name: our name} for the keys that are used."""
        unused, keys = set(self.unused(tensors)), {}
        for name in tensors:
            if name in unused:
                continue
            if name in self.reshaped:
                keys[name] = self.reshaped[name]
                continue
            for pattern, ours in self.rules:
                if re.fullmatch(pattern, name):
                    keys[name] = re.sub(pattern, ours, name)
                    break
        return keys

    def official_name(self, ours: str) -> str | None:
        """Return the official name of one of our parameters, by reading the rules backwards."""
        for theirs, name in self.reshaped.items():
            if name == ours:
                return theirs
        for pattern, replacement in self.rules:
            backwards = re.escape(replacement)
            for number, group in enumerate(re.findall(r"\([^()]*\)", pattern), 1):
                backwards = backwards.replace(rf"\\{number}", group)
            if found := re.fullmatch(backwards, ours):
                theirs = pattern
                for value in found.groups():
                    theirs = re.sub(r"\([^()]*\)", value, theirs, count=1)
                return theirs.replace("\\", "")
        return None

    def by_default(self, name: str, value: Any, why: str) -> Any:
        """Return an option that the file does not tell: the given value, or this default."""
        given = getattr(self, name, None)
        origin: Literal["given", "default"] = "default" if given is None else "given"
        self.settings[name] = Setting(
            name, value if given is None else given, origin, why if given is None else ""
        )
        return self.settings[name].value

    def by_file(self, name: str, value: Any, where: str) -> Any:
        """Return an option whose value was read from the file.

        Raises:
            DataError: the user gave another value.
        """
        given = getattr(self, name, None)
        if given is not None and given != value:
            flag = f"--{name}" if given is True else f"--{name} {given}"
            raise DataError(f"{flag} contradicts the file: {where}; leave the flag out")
        self.settings[name] = Setting(name, value, "read from the file", where)
        return value

    def weak_if(self, tensors: Mapping[str, Tensor], key: str) -> bool:
        """Return the supervision, where only the weakly supervised model has a tensor `key`."""
        has = "has" if key in tensors else "lacks"
        why = f"it {has} '{key}', which the weakly supervised model has"
        return self.by_file("weak", key in tensors, why)

    def check_classes(self, tensors: Mapping[str, Tensor], name: str, labels: Labels) -> None:
        """Check the number of classes against the rows of a tensor.

        Raises:
            DataError: the numbers differ.
        """
        count = need(tensors, name).shape[0]
        if count != len(labels.classes):
            raise DataError(
                f"'{name}' is for {counted(count, 'class')}, but the task has "
                f"{len(labels.classes)}; check that the file is of this model"
            )

    def _check(
        self,
        tensors: dict[str, Tensor],
        keys: dict[str, str],
        own: Mapping[str, Tensor],
        strangers: set[str],
        fitting: list[str],
    ) -> None:
        missing = sorted(set(own) - set(keys.values()) - set(self.not_in_checkpoint))
        foreign = {name for name, ours in keys.items() if ours not in own}
        lists = {
            "missing": [f"{self.official_name(ours) or '?'} (ours: {ours})" for ours in missing],
            "unknown": sorted(strangers | foreign),
            "misshapen": [
                f"{name} {list(tensors[name].shape)} (ours: {ours} {list(own[ours].shape)})"
                for name, ours in keys.items()
                if ours in own and name not in fitting
            ],
            "not in a precision that is read": [
                f"{name} ({str(tensors[name].dtype).removeprefix('torch.')})"
                for name in fitting
                if tensors[name].dtype not in PRECISIONS and own[keys[name]].is_floating_point()
            ],
        }
        if not any(lists.values()):
            lists["not finite"] = [n for n in fitting if not bool(tensors[n].isfinite().all())]
        if any(lists.values()):
            raise self._wrong(lists)

    def _wrong(self, lists: dict[str, list[str]]) -> DataError:
        found = [
            f"{kind}: {', '.join(names[:MOST_LISTED])}"
            f"{f' and {len(names) - MOST_LISTED} more' * (len(names) > MOST_LISTED)}"
            for kind, names in lists.items()
            if names
        ]
        return DataError(
            f"this is not a checkpoint of {self.title} as published "
            f"({printable('; '.join(found))}); check that the file is of this model"
        )


def unit_rules(prefix: str, ours: str, *, groups: int = 1) -> tuple[tuple[str, str], ...]:
    """Return the rules of one attention unit of MM-Pyr or LEAP.

    Args:
        prefix: a pattern of the names before those of the unit.
        ours: the replacement of the prefix.
        groups: the number of groups in the prefix.
    """
    last = rf"\{groups + 1}"
    parts = {
        r"self_attn\.linears\.0": "attention.query",
        r"self_attn\.linears\.1": "attention.key",
        r"self_attn\.linears\.2": "attention.value",
        r"self_attn\.linears\.3": "attention.output",
        r"feed_forward\.w_1": "feedforward.inner",
        r"feed_forward\.w_2": "feedforward.outer",
        r"sublayer\.0\.norm": "attention_norm",
        r"sublayer\.1\.norm": "feedforward_norm",
    }
    return tuple(
        (rf"{prefix}{pattern}\.(.+)", f"{ours}{name}.{last}") for pattern, name in parts.items()
    )


def stem_features(tensors: Mapping[str, Tensor], *, inside: str = "") -> FeatureSpec:
    """Return the widths of the features that HAN's stem reads; `inside` ends its layers' names."""
    audio, visual, motion = (
        need(tensors, f"{layer}{inside}.weight").shape[1] for layer in ("fc_a", "fc_v", "fc_st")
    )
    return FeatureSpec(audio_dim=audio, visual_dim=visual, motion_dim=motion)


def count_below(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Return how many parts, such as numbered layers, stand below a prefix."""
    inside = (name.removeprefix(prefix) for name in tensors if name.startswith(prefix))
    return len({name.partition(".")[0] for name in inside})


def map_size(positions: int) -> tuple[int, int]:
    """Return the height and width of a map that is as square as possible."""
    side = round(positions**0.5)
    return side, positions // side


def clean(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Strip the "module." of a data-parallel wrapper if all names have it."""
    names = list(tensors)
    while names and all(name.startswith("module.") for name in names):
        names = [name.removeprefix("module.") for name in names]
    return dict(zip(names, tensors.values(), strict=True))


def need(tensors: Mapping[str, Tensor], name: str, ndim: int = 2) -> Tensor:
    """Return a tensor whose shape is needed to build the model.

    Raises:
        DataError: it is missing, or has another number of axes.
    """
    if name not in tensors:
        raise MissingTensorError(name)
    if tensors[name].ndim != ndim or 0 in tensors[name].shape:
        raise DataError(
            f"'{name}' has shape {list(tensors[name].shape)} instead of {ndim} axes; "
            "check that the file is of this model"
        )
    return tensors[name]
