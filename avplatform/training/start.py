"""Start a model from the weights of another one, and freeze parts that were taken over."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from avplatform.config.run import RunConfig
from avplatform.hub.folder import model_folder
from avplatform.models.av_model import COMPANION, WEIGHTS_FILE, AVModel, without_memory
from avplatform.models.config import AVModelConfig, config_to_dict
from avplatform.models.errors import AVError, DataError, UsageError, counted
from avplatform.models.files import file_sha256
from avplatform.models.paths import expanded

FROZEN = {"none": (), "encoder": ("stem.", "encoder.")}
"""By value of --freeze, the beginnings of the names of the parameters that keep their values."""
HEADS = 10.0
"""Learning rate of new weights of single classes, as a multiple of the others'."""
LABELS = "label_embeddings"
SHOWN = 24  # names in a line; start.json holds all of them


@dataclass(kw_only=True)
class Start:
    """What a model took over from another one."""

    source: str
    """the run, model folder or hub id, as it was given"""
    sha256: str
    """checksum of its weights"""
    taken: list[str]
    """names of the tensors that were taken over"""
    new: list[str]
    """names of the tensors of this model that keep the values that the seed gave them"""
    unused: list[str]
    """names of the tensors of the source that this model has no use for"""
    differs: list[str]
    """options in which the two models differ"""
    scale: float = 1.0
    """multiple at which the weight matrices that were taken over begin"""
    loaded: bool = True
    """whether the weights were loaded now; a resumed run has them in its checkpoints"""

    def lines(self) -> list[str]:
        """Return what a person should know, one sentence a line."""
        tensors = counted(len(self.taken) + len(self.new), "tensor")
        lines = [f"started from {self.source}: took {len(self.taken)} of {tensors}"]
        if self.scale != 1:
            lines.append(f"the weight matrices among them begin at {self.scale:g} of their values")
        if self.new:
            lines.append(f"new, with initial values ({len(self.new)}): {_shown(self.new)}")
        if self.unused:
            lines.append(f"not used of {self.source} ({len(self.unused)}): {_shown(self.unused)}")
        if self.differs:
            lines.append(f"options that differ: {'; '.join(self.differs)}")
        return lines

    def summary(self) -> dict[str, Any]:
        """Return what results.json holds."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "taken": len(self.taken),
            "new": self.new,
            "unused": self.unused,
            "scale": self.scale,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the content of start.json."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "loaded"}

    @classmethod
    def read(cls, file: Path) -> Start:
        """Read a start.json.

        Raises:
            DataError: the file is missing or damaged.
        """
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")), loaded=False)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"{file} cannot be read ({error}); it says what the run started from, "
                "without which it cannot go on: start a new run"
            ) from None


def start_model(model: AVModel, config: RunConfig) -> Start | None:
    """Give a new model the weights that its run starts from, if any, and freeze what is to be.

    A tensor is taken over if its name and shape are the same, and the part (encoder or decoder)
    that it belongs to is of the same kind. What depends on the classes is taken over only if the
    classes are the same; the embeddings of label texts are those of the new model's own texts.

    Raises:
        DataError: the source is no model, reads other features, has nothing in common with the
            model, or lacks a part that is to be frozen.
        UsageError: `optim.head_lr` is set, but nothing is new.
    """
    if config.init_from is None:
        return None
    start = _taken_over(model, config.init_from, config.init_scale)
    prepare_start(model, config, start)
    return start


def prepare_start(model: AVModel, config: RunConfig, start: Start) -> None:
    """Freeze parameters as a run says, and check that its options fit what was taken over.

    Raises:
        DataError: a part that is to be frozen was not taken over.
        UsageError: `optim.head_lr` is set, but nothing is new.
    """
    frozen = FROZEN[config.freeze]
    if missing := [name for name in start.new if frozen and name.startswith(frozen)]:
        raise DataError(
            f"--freeze {config.freeze}: {start.source} does not hold {_shown(missing)}, which "
            "would stay random; take the encoder's options from it "
            f"(--config RUN), or leave --freeze out{_because(start)}"
        )
    for name, parameter in model.named_parameters():
        if frozen and name.startswith(frozen):
            parameter.requires_grad_(False)
    if config.optim.head_lr is not None and not start.new:
        raise UsageError(
            f"optim.head_lr is for what is new, but everything was taken over from {start.source}; "
            "leave it out"
        )


def new_rate(model: AVModel, config: RunConfig, start: Start | None) -> tuple[list[str], float]:
    """Return the parameters that have a learning rate of their own, as a multiple of the others'.

    With `optim.head_lr` these are all that are new. Without it they are the new ones of single
    classes, which begin at small random values and would hold up what was trained before.
    """
    if start is None or not start.new:
        return [], 1.0
    if config.optim.head_lr is not None:
        return start.new, config.optim.head_lr / config.optim.lr
    heads = of_classes(model)
    return [name for name in start.new if name in heads], HEADS


def _taken_over(model: AVModel, source: str, scale: float) -> Start:
    """Copy what two models have in common, and say what that is."""
    try:
        folder = model_folder(expanded(source))
        other = AVModel.from_pretrained(folder)
    except AVError as error:
        raise DataError(f"--init-from {source}: {error}") from None
    if other.config.features != model.config.features:
        raise DataError(
            f"--init-from {source}: it reads {other.config.features}, but the data hold "
            f"{model.config.features}; give a model that was trained on the same features"
        )
    theirs = other.state_dict()
    # No model folder holds a companion; it starts anew.
    own = {k: v for k, v in model.state_dict().items() if not k.startswith(COMPANION)}
    foreign = tuple(
        f"{part}."
        for part in ("encoder", "decoder")
        if getattr(model.config, part)._type != getattr(other.config, part)._type
    )
    texts = set() if model.config.learned_labels else {LABELS}
    if list(other.config.classes) != list(model.config.classes):
        texts |= of_classes(model)
    taken = [
        name
        for name in own
        if name in theirs and own[name].shape == theirs[name].shape
        if not name.startswith(foreign) and name not in texts
    ]
    start = Start(
        source=source,
        sha256=file_sha256(folder / WEIGHTS_FILE),
        taken=taken,
        new=_without_texts(own.keys() - taken, model),
        unused=_without_texts(theirs.keys() - taken, other),
        differs=_differences(model.config, other.config),
        scale=scale,
    )
    if not any(own[name].ndim > 1 for name in taken):  # a bias may fit by chance
        raise DataError(
            f"--init-from {source}: it is {_cell(other.config)} and has no matrix of weights in "
            f"common with this {_cell(model.config)}; take its options (--config RUN)"
            f"{_because(start)}"
        )
    matrices = {name for name, value in model.named_parameters() if value.ndim > 1}
    with torch.no_grad():
        for name in taken:
            own[name].copy_(theirs[name] * scale if name in matrices else theirs[name])
    return start


def of_classes(model: AVModel) -> set[str]:
    """Return the names of the tensors whose shape follows from the number of classes."""
    config = model.config
    texts = [*config.label_texts, ""] if config.label_texts else []
    wider = dataclasses.replace(config, classes=[*config.classes, ""], label_texts=texts)

    def build() -> AVModel:
        labels = torch.zeros(len(wider.classes), config.label_dim) if texts else None
        return AVModel(wider, label_embeddings=labels)

    with torch.random.fork_rng(devices=[]):
        other = (without_memory(build) or build()).state_dict()
    own = model.state_dict()
    return {name for name in own if name in other and other[name].shape != own[name].shape}


def _without_texts(names: Iterable[str], model: AVModel) -> list[str]:
    """Return names in order, without the embeddings of label texts, which no one trained."""
    return sorted(name for name in names if name != LABELS or model.config.learned_labels)


def _differences(own: AVModelConfig, other: AVModelConfig) -> list[str]:
    """Return the options of two models that differ and that a run can set."""
    found = []
    for part in ("encoder", "decoder"):
        ours, theirs = (config_to_dict(getattr(config, part)) for config in (own, other))
        if ours["_type"] != theirs["_type"]:
            found.append(f"{part} {theirs['_type']} there, {ours['_type']} here")
            continue
        found += [
            f"{part}_config.{name} {theirs[name]} there, {value} here"
            for name, value in ours.items()
            if name in theirs and theirs[name] != value
        ]
    if own.label_texts and other.label_texts and _label_source(own) != _label_source(other):
        found.append(f"label embeddings {_label_source(other)} there, {_label_source(own)} here")
    return found


def _label_source(config: AVModelConfig) -> str:
    source = config.label_source
    named = " ".join(str(source[key]) for key in ("kind", "name") if source.get(key))
    return f"{named or 'of unknown origin'} of width {config.label_dim}"


def _because(start: Start) -> str:
    return f" ({'; '.join(start.differs)})" if start.differs else ""


def _cell(config: AVModelConfig) -> str:
    return f"{config.encoder._type} + {config.decoder._type}"


def _shown(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
