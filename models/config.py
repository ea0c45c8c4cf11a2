"""The config of a model: nested dataclasses, and their conversion to and from JSON."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from avplatform.models.checks import in_range, sizes
from avplatform.models.contracts import FeatureSpec
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.errors import DataError, UsageError, counted, unknown_name
from avplatform.models.typed_values import build

CONFIG_VERSION = 3
COMPONENTS = ("encoder", "decoder")


@dataclass(kw_only=True)
class AVModelConfig:
    """Everything that is needed to build a model.

    Args:
        task: the name of the task that the model was trained for.
        classes: what the model predicts, in the order of its outputs.
        encoder: the config dataclass of a registered encoder.
        decoder: the config dataclass of a registered decoder.
        features: the features that the model reads.
        label_texts: the texts whose embeddings the decoder queries, one per class, in the same
            order.
        label_dim: the width E of the label embeddings.
        label_source: where the label embeddings came from (kind, name, checksums, versions), as
            far as that is known.
        learned_labels: the label embeddings are a table that was trained with the model, for these
            classes only.
        task_config: the options that the task needs to read the predictions (plain JSON values).
        reference_order: pool frames after the affine map, as the published code does. This is
            slower, and equal to that code to the last bit. Models that were converted from
            official checkpoints set it.
        segments: the number of segments of the clips that the model was trained on.
        segment_seconds: the length of a segment in seconds.
        training_clips: the number of training clips that held each class; empty where nobody
            counted them, as in models of older releases, whose classes count as trained.
    """

    task: str
    classes: list[str]
    encoder: Any
    decoder: Any
    features: FeatureSpec = field(default_factory=FeatureSpec)
    label_texts: list[str] = field(default_factory=list)
    label_dim: int = 50
    label_source: dict[str, Any] = field(default_factory=dict)
    learned_labels: bool = False
    task_config: dict[str, Any] = field(default_factory=dict)
    reference_order: bool = False
    segments: int = 10
    segment_seconds: float = 1.0
    training_clips: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes(self, "label_dim", "segments")
        in_range(self, "segment_seconds", 0.001, 3600)
        self.classes, self.label_texts = list(self.classes), list(self.label_texts)
        if not self.classes:
            raise UsageError("a model needs at least one class; `classes` is empty")
        if self.label_texts and len(self.label_texts) != len(self.classes):
            texts = counted(len(self.label_texts), "label text")
            raise UsageError(
                f"{texts} for {counted(len(self.classes), 'class')}; give one text per class"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON, with `_type` and `_version`.

        A model without counts of training clips is written as version 2, and one for clips of ten
        one-second segments as version 1, without these fields, so that older releases can read it.
        """
        content = config_to_dict(self)
        if self.training_clips:
            return {"_version": CONFIG_VERSION, **content}
        del content["training_clips"]
        if (self.segments, self.segment_seconds) != (10, 1.0):
            return {"_version": 2, **content}
        del content["segments"], content["segment_seconds"]
        return {"_version": 1, **content}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> AVModelConfig:
        """Rebuild the config that `to_dict` wrote.

        Raises:
            DataError: a newer version, an unknown `_type`, or an unknown field.
        """
        data = dict(data)
        version = data.pop("_version", CONFIG_VERSION)
        if version > CONFIG_VERSION:
            raise DataError(
                f"model config has version {version}; "
                f"this avplatform reads up to {CONFIG_VERSION}: upgrade it"
            )
        return config_from_dict(cls, data)


def config_to_dict(config: Any) -> dict[str, Any]:
    """Return a nested dataclass as a dictionary; `_type` holds the registered or class name."""
    out: dict[str, Any] = {"_type": getattr(type(config), "_type", type(config).__name__)}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        out[f.name] = config_to_dict(value) if dataclasses.is_dataclass(value) else plain(value)
    return out


def options_of(config: Any) -> dict[str, Any]:
    """Return the options of a dataclass as plain values, without its `_type`."""
    return {name: value for name, value in config_to_dict(config).items() if name != "_type"}


def config_from_dict(cls: type, data: dict[str, Any]) -> Any:
    """Build the dataclass `cls` from a dictionary.

    The classes of nested dataclasses follow from the field types, or from `_type`.

    Raises:
        DataError: an unknown `_type` or field, or a value of the wrong type.
    """
    if cls is AVModelConfig:
        data = {
            k: component_config(k, v) if k in COMPONENTS and isinstance(v, dict) else v
            for k, v in data.items()
        }
    return build(cls, data)


def component_config(kind: str, data: dict[str, Any]) -> Any:
    """Build the config of a component from a dictionary, whose `_type` is its registered name.

    Args:
        kind: "encoder" or "decoder".
        data: what `config_to_dict` wrote.
    """
    tables: dict[str, dict[str, Any]] = {"encoder": {**ENCODERS}, "decoder": {**DECODERS}}
    table = tables[kind]
    name = data.get("_type")
    if name not in table:
        raise unknown_name(kind, str(name), table)
    return config_from_dict(table[name].Config, data)


def plain(value: Any) -> Any:
    """Return a value as JSON keeps it: lists instead of tuples, and texts as dictionary keys."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value
