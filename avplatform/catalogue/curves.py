"""Figures after each epoch of training runs that others published."""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

FILE = "curves.csv"

Curve = dict[int, dict[str, float]]
"""The figures of a split by epoch, in percent."""


@cache
def published_curves() -> dict[str, Curve]:
    """Return the validation curves of LEAP on MM-Pyr by the label embeddings of the run.

    Source: the training logs of ELSA (see the head of the file), whose data are the real LLP.

    Examples:
        >>> {name: curve[1]["segment_Type@AV"] for name, curve in published_curves().items()}
        {'glove-300d': 40.6, 'clip': 14.7}
    """
    text = files("avplatform.catalogue").joinpath(FILE).read_text(encoding="utf-8")
    curves: dict[str, Curve] = {}
    for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        labels, epoch = row.pop("label_embeddings"), int(row.pop("epoch"))
        curves.setdefault(labels, {})[epoch] = {name: float(v) for name, v in row.items()}
    return curves
