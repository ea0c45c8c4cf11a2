"""Nested dataclass configurations that survive JSON both ways, and the dictionaries of names behind them."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from typing import Any

from models.errors import DataError, UsageError, counted, nearest, unknown_name
from models.typed_values import build

CONFIG_VERSION = 1
COMPONENTS = ("encoder", "decoder")
WIDTH, DEPTH, MAP_EDGE = 2**16, 128, 256  # far above what anybody trains; a hostile config cannot exhaust memory


@dataclass(kw_only=True)
class FeatureSpec:
    """The features of a dataset, as far as a model must know them.

    Shape: audio [B, T, audio_dim]; visual [B, T, visual_dim], or [B, T, H, W, visual_dim] where `map_size` is (H, W);
    motion [B, T, motion_dim] where there is one. `extractors` says how the features were made (recipe, weights and their
    checksums), as far as it is known; it does not count when specs are compared.
    """

    audio_dim: int = 128
    visual_dim: int = 512
    motion_dim: int | None = None
    map_size: tuple[int, int] | None = None
    extractors: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        sizes(self, "audio_dim", "visual_dim", "motion_dim")
        if self.map_size is not None:
            height, width = self.map_size
            if not (1 <= height <= MAP_EDGE and 1 <= width <= MAP_EDGE):
                raise UsageError(f"FeatureSpec.map_size is {self.map_size}; both must lie between 1 and {MAP_EDGE}")
            self.map_size = (int(height), int(width))

    @property
    def positions(self) -> int:
        """Number of map positions P; 1 for a dataset of vectors."""
        return 1 if self.map_size is None else self.map_size[0] * self.map_size[1]


@dataclass(kw_only=True)
class AVModelConfig:
    """Everything needed to build a model: what it reads, its encoder and decoder, and what it predicts.

    `encoder` and `decoder` are the config dataclasses of registered names; `label_texts` are the texts whose
    embeddings LEAP queries (one per class, in the same order); `label_dim` is their embeddings' width E;
    `label_source` says where these came from (kind, name, checksums, versions), as far as it is known; with
    `learned_labels` they are a trained table, of these classes alone.
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

    def __post_init__(self) -> None:
        sizes(self, "label_dim")
        self.classes, self.label_texts = list(self.classes), list(self.label_texts)
        if not self.classes:
            raise UsageError("a model needs at least one class; `classes` is empty")
        if self.label_texts and len(self.label_texts) != len(self.classes):
            texts = counted(len(self.label_texts), "label text")
            raise UsageError(f"{texts} for {counted(len(self.classes), 'class')}; give one text a class")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary with `_type` and `_version`."""
        return {"_version": CONFIG_VERSION, **config_to_dict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> AVModelConfig:
        """Rebuild the config that `to_dict` wrote.

        Raises:
            DataError: a newer version, an unknown `_type`, or a field that the config does not have.
        """
        data = dict(data)
        version = data.pop("_version", CONFIG_VERSION)
        if version > CONFIG_VERSION:
            raise DataError(f"model config has version {version}; this avplatform reads up to {CONFIG_VERSION}: upgrade it")
        return config_from_dict(cls, data)


def at_least(config: Any, name: str, low: float) -> None:
    """Check `config.name >= low`; the error names the field, the value and the bound."""
    value = getattr(config, name)
    if not _is_number(value) or not low <= value < math.inf:
        what = "finite" if value == math.inf else f"at least {low}"
        raise UsageError(f"{type(config).__name__}.{name} is {value!r}; it must be {what}")


def sizes(config: Any, *names: str, most: int = WIDTH) -> None:
    """Check that these fields are whole numbers from 1 to `most`, or None."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not (_is_number(value) and isinstance(value, int) and 1 <= value <= most):
            raise UsageError(f"{type(config).__name__}.{name} is {value!r}; it must be a whole number from 1 to {most}")


def in_range(config: Any, name: str, low: float, high: float) -> None:
    """Check `low <= config.name <= high`."""
    value = getattr(config, name)
    if not _is_number(value) or not low <= value <= high:
        raise UsageError(f"{type(config).__name__}.{name} is {value!r}; it must lie between {low} and {high}")


def finite(config: Any, *names: str) -> None:
    """Check that these fields are finite numbers, or None."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not (_is_number(value) and math.isfinite(value)):
            raise UsageError(f"{type(config).__name__}.{name} is {value!r}; it must be a number")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def one_of(config: Any, name: str, choices: typing.Sequence[Any]) -> None:
    """Check that `config.name` is one of the choices, with the nearest one in the error."""
    value = getattr(config, name)
    if value not in choices:
        hint = nearest(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else ""
        raise UsageError(f"{type(config).__name__}.{name} is {value!r}{hint}; choose from {', '.join(map(str, choices))}")


def divides(config: Any, part: str, whole: int, what: str) -> None:
    """Check that `config.part` divides `whole`."""
    if whole % getattr(config, part):
        raise UsageError(f"{type(config).__name__}.{part} is {getattr(config, part)}; it must divide {what} ({whole})")


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
        data = {k: component_config(k, v) if k in COMPONENTS and isinstance(v, dict) else v for k, v in data.items()}
    return build(cls, data)


def component_config(kind: str, data: dict[str, Any]) -> Any:
    """Build the config of the encoder or decoder that `data["_type"]` names."""
    from models.decoders import DECODERS
    from models.encoders import ENCODERS

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
