"""Nested dataclass configurations that survive JSON both ways, and the dictionaries of names behind them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from avplatform.models.checks import in_range, sizes
from avplatform.models.contracts import FeatureSpec
from avplatform.models.errors import (
    DataError,
    UsageError,
    counted,
    unknown_name,
)
from avplatform.models.typed_values import build

CONFIG_VERSION = 2
COMPONENTS = ("encoder", "decoder")


@dataclass(kw_only=True)
class AVModelConfig:
    """Everything needed to build a model: what it reads, its encoder and decoder, and what it predicts.

    `encoder` and `decoder` are the config dataclasses of registered names; `label_texts` are the texts whose
    embeddings LEAP queries (one per class, in the same order); `label_dim` is their embeddings' width E;
    `label_source` says where these came from (kind, name, checksums, versions), as far as it is known; with
    `learned_labels` they are a trained table, of these classes alone.
    It was trained on clips of `segments` times `segment_seconds`.
    `task_config` is what the task needs to read the model's predictions again (plain JSON values). `reference_order` runs the
    operations of the stem in the order of the published code, frames pooled after their affine map: slower, and equal to it
    to the last bit; models converted from official checkpoints have it.
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

    def __post_init__(self) -> None:
        sizes(self, "label_dim", "segments")
        in_range(self, "segment_seconds", 0.001, 3600)
        self.classes, self.label_texts = list(self.classes), list(self.label_texts)
        if not self.classes:
            raise UsageError("a model needs at least one class; `classes` is empty")
        if self.label_texts and len(self.label_texts) != len(self.classes):
            texts = counted(len(self.label_texts), "label text")
            raise UsageError(
                f"{texts} for {counted(len(self.classes), 'class')}; give one text a class"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary with `_type` and `_version`.

        Clips of ten seconds are left unsaid, as in version 1, so that what reads that version reads them.
        """
        content = config_to_dict(self)
        if (self.segments, self.segment_seconds) != (10, 1.0):
            return {"_version": CONFIG_VERSION, **content}
        del content["segments"], content["segment_seconds"]
        return {"_version": 1, **content}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> AVModelConfig:
        """Rebuild the config that `to_dict` wrote.

        Raises:
            DataError: a newer version, an unknown `_type`, or a field that the config does not have.
        """
        data = dict(data)
        version = data.pop("_version", CONFIG_VERSION)
        if version > CONFIG_VERSION:
            raise DataError(
                f"model config has version {version}; this avplatform reads up to {CONFIG_VERSION}: upgrade it"
            )
        return config_from_dict(cls, data)


def config_to_dict(config: Any) -> dict[str, Any]:
    """Turn a (nested) dataclass into a dictionary; every dataclass carries its registered name or class in `_type`."""
    out: dict[str, Any] = {"_type": getattr(type(config), "_type", type(config).__name__)}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        out[f.name] = config_to_dict(value) if dataclasses.is_dataclass(value) else _plain(value)
    return out


def config_from_dict(cls: type, data: dict[str, Any]) -> Any:
    """Build dataclass `cls` from a dictionary; nested dataclasses follow from field types, or from `_type`.

    Raises:
        DataError: an unknown `_type` or field, or a value of another kind.
    """
    if cls is AVModelConfig:
        data = {
            k: component_config(k, v) if k in COMPONENTS and isinstance(v, dict) else v
            for k, v in data.items()
        }
    return build(cls, data)


def component_config(kind: str, data: dict[str, Any]) -> Any:
    """Build the config of the encoder or decoder that `data["_type"]` names."""
    from avplatform.models.decoders import DECODERS
    from avplatform.models.encoders import ENCODERS

    tables: dict[str, dict[str, Any]] = {"encoder": {**ENCODERS}, "decoder": {**DECODERS}}
    table = tables[kind]
    name = data.get("_type")
    if name not in table:
        raise unknown_name(kind, str(name), table)
    return config_from_dict(table[name].Config, data)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
