"""A golden case: its json, stored tensors, and weights and inputs that `fill.py` regenerates."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.parity.fill import fill

DEFAULT_GOLDEN = Path(__file__).parent / "golden"


@dataclass
class Case:
    name: str
    folder: Path

    @cached_property
    def json(self) -> dict[str, Any]:
        return json.loads((self.folder / f"{self.name}.json").read_text())

    @cached_property
    def stored(self) -> dict[str, Tensor]:
        file = self.folder / f"{self.name}.safetensors"
        return load_file(file) if file.exists() else {}

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.json.get("dtype") == "float64" else torch.float32

    @property
    def config(self) -> dict[str, Any]:
        return self.json["config"]

    def input(self, name: str) -> Tensor:
        """The input `input.<name>`, cast to the case's precision."""
        key = f"input.{name}"
        return torch.from_numpy(fill(key, self.json["inputs"][key], self.json["case_seed"])).to(
            self.dtype
        )

    def has_input(self, name: str) -> bool:
        return f"input.{name}" in self.json["inputs"]

    def weights(self) -> dict[str, Tensor]:
        """The official state dict."""
        scale = self.json.get("weight_scale", 1.0)
        shapes = tuple((name, tuple(shape)) for name, shape in self.json["parameters"].items())
        filled = _filled(shapes, self.json["case_seed"], self.dtype)
        out = {n: v * scale if v.ndim >= 2 else v.clone() for n, v in filled.items()}
        for alias, first in self.json.get("aliases", {}).items():
            out[alias] = out[first]
        return out

    def labels_above(self, name: str, *, step: int | None = None) -> Tensor:
        """Labels `fill > threshold`; the case's own text gives the threshold for `name`."""
        values = self.input(name if step is None else f"step{step}.{name}")
        labels = (values > self.threshold(name)).to(self.dtype)
        exception = (self.json.get("labels") or {}).get("exception", "")
        found = re.match(
            r"in step(\d+) clip (\d+) both segment label maps are set to zero", exception
        )
        if exception and not found:
            raise ValueError(f"{self.name}: exception not understood: {exception}")
        if found and step == int(found[1]) and name.startswith("temporal_"):
            labels[int(found[2])] = 0
        return labels

    def threshold(self, name: str) -> float:
        rule = (self.json.get("labels") or {}).get(name)
        texts = [rule] if rule else []
        for note in self.json.get("notes", []):
            texts += re.findall(
                rf'{name}:? fill ?> ?[\d.]+|fill\("input\.{name}"\) ?> ?[\d.]+', note
            )
        for text in texts:
            found = re.search(r"> ?(\d+(?:\.\d+)?)", text)
            if found:
                return float(found[1])
        raise ValueError(f"{self.name}: no label rule for {name}")

    def segment_labels(
        self, step: str | None = None, *, segments: int = 10
    ) -> tuple[Tensor, Tensor]:
        """Segment labels [B, T] and video labels [B] from (class, onset, offset).

        Class 28 is background.
        """
        rows = self.json["labels"]["class_onset_offset"]
        rows = rows[step] if step is not None else rows
        segment = torch.full((len(rows), segments), 28)
        video = torch.full((len(rows),), 28)
        for i, (label, onset, offset) in enumerate(rows):
            segment[i, onset:offset] = label
            video[i] = label if offset > onset else 28
        return segment, video

    def compare(self, produced: dict[str, Any], *, given: tuple[str, ...] = ()) -> None:
        """Check all stored tensors except `given` (stored inputs) against those produced."""
        compared = 0
        assert self.stored, f"{self.name}: the safetensors file is missing or empty"
        tolerance = self.json["tolerance"]
        for name, expected in self.stored.items():
            if name in given:
                continue
            assert name in produced, (
                f"{self.name}: nothing is produced for the stored tensor '{name}'"
            )
            factor = ROUNDING.get(self.name, {}).get(name, 1)
            allowed = {kind: factor * value for kind, value in tolerance.items()}
            close(f"{self.name}.{name}", produced[name], expected, allowed)
            compared += 1
        assert compared, f"{self.name}: no stored tensor was compared"


@lru_cache(maxsize=1)
def _filled(
    shapes: tuple[tuple[str, tuple[int, ...]], ...], seed: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Fill tensors, which takes seconds for a large model.

    A training case asks for the same ones three times, so the last ones are kept.
    """
    return {name: torch.from_numpy(fill(name, shape, seed)).to(dtype) for name, shape in shapes}


# The stored numbers of these tensors are rounded by more than their tolerance: the same network in
# float64 lies up to 1.6 tolerances from them, and float32 kernels of other processors up to 3.1.
ROUNDING = {
    "mmpyr_leap": {"label_out_a": 4, "label_out_v": 4, "leap_logits_a": 4, "leap_logits_v": 4}
}


def close(name: str, actual: Any, expected: Any, tolerance: dict[str, float]) -> None:
    """Fail unless |actual - expected| <= atol + rtol * |expected| everywhere."""
    a = np.asarray(actual.detach() if isinstance(actual, Tensor) else actual, dtype=np.float64)
    e = np.asarray(expected, dtype=np.float64)
    assert a.size == e.size and a.squeeze().shape == e.squeeze().shape, (
        f"{name}: shape {a.shape} instead of {e.shape}"
    )
    a = a.reshape(e.shape)
    difference = np.where(np.isnan(a) & np.isnan(e), 0.0, np.abs(a - e))
    allowed = np.where(np.isnan(e), 0.0, tolerance["atol"] + tolerance["rtol"] * np.abs(e))
    bad = ~(difference <= allowed)
    assert not bad.any(), (
        f"{name}: off by {np.nanmax(difference / np.maximum(allowed, 1e-300)):.3g} tolerances"
    )
