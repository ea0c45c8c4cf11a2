"""Targets of `avplatform reproduce`: the published rows of each table, and what each one trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from avplatform.catalogue.published import Row, published_tables
from avplatform.config.presets import preset_options
from avplatform.config.values import flat
from avplatform.models.decoders import DECODERS
from avplatform.models.errors import UsageError, unknown_name
from avplatform.sweeps.sweep import slug

TABLES = {
    "table1": "leap-table-1",
    "table2": "leap-table-2",
    "fig3": "leap-figure-3",
    "table3": "leap-table-3",
    "table4": "leap-table-4",
    "table5": "leap-table-5",
    "fig4": "leap-figure-3",
}
"""Targets by name, in the paper's order, and the published table that holds their rows.

Figure 4 has no numbers; it is drawn from the two models of Figure 3.
"""

LABELS = ("glove", "bert", "clip")
"""Label embeddings of the paper's rows; GloVe (50 dimensions) is shipped, the user gives others."""


@dataclass(kw_only=True, frozen=True)
class Setting:
    """What to train: a preset, options that override it, and label embeddings ("" for none).

    Where the training labels are refined, `rule` is the command that makes them by modality,
    "exchange" or "noise-ratio", and `base` the setting of the model that it asks.
    """

    preset: str
    options: dict[str, Any] = field(default_factory=dict)
    labels: str = ""
    rule: str = ""
    base: Setting | None = None

    @property
    def stem(self) -> str:
        """Return the name of the setting's runs (without seed) and of its converted checkpoint."""
        parts = [
            f"{name.rpartition('.')[2]}-{slug(value)}" for name, value in flat(self.options).items()
        ]
        return "_".join(
            [
                self.preset,
                *parts,
                *([self.labels] if self.labels not in ("", "glove") else []),
                *([self.rule] if self.rule else []),
            ]
        )

    @property
    def task(self) -> str:
        """Return the task of the preset."""
        return str(preset_options(self.preset)["task"])


@dataclass(kw_only=True, frozen=True)
class Wanted:
    """A published row and the setting that reproduces it; None if we cannot train the method."""

    row: Row
    setting: Setting | None

    @property
    def title(self) -> str:
        """Return the method, with our supervision if the source does not state one."""
        if self.setting is None or self.row.supervision is not None:
            return self.row.method
        return f"{self.row.method}, {preset_options(self.setting.preset)['supervision']}"


def target_names(asked: Sequence[str]) -> list[str]:
    """Return the wanted targets, each once, in the paper's order; "all" stands for all of them.

    Raises:
        UsageError: no target is given, or one is unknown; the message names the nearest one.
    """
    if not asked:
        raise UsageError(
            f"say what to reproduce, before the options: {', '.join(TABLES)} or all, as in "
            "`avplatform reproduce table2 --data DIR`"
        )
    for name in asked:
        if name not in (*TABLES, "all"):
            raise unknown_name("target", name, (*TABLES, "all"))
    return [name for name in TABLES if name in asked or "all" in asked]


def wanted(target: str) -> list[Wanted]:
    """Return the published rows of a target with their settings, in the source's order.

    Example:
        >>> [w.setting.stem for w in wanted("table1")][:2]
        ['mmpyr-leap-avvp-official_blocks-1_avss-off', 'mmpyr-leap-avvp-official_avss-off']
    """
    found = []
    for row in published_tables()[TABLES[target]].rows:
        presets = row.open_presets or ((row.preset,) if row.preset else ())
        labels = (row.label_embeddings or "GloVe").lower() if _by_texts(row.decoder) else ""
        settings: list[Setting | None] = [
            Setting(preset=preset, options=row.options, labels=labels, **_refined(row))
            for preset in presets
        ]
        found += [Wanted(row=row, setting=setting) for setting in settings or [None]]
    return found


def _refined(row: Row) -> dict[str, Any]:
    if not row.refined:
        return {}
    return {"rule": row.refined["rule"], "base": Setting(preset=row.refined["preset"])}


def _by_texts(decoder: str) -> bool:
    return decoder in DECODERS and DECODERS[decoder].needs_labels


def settings_of(targets: Sequence[str]) -> dict[str, Setting]:
    """Return the settings to train for some targets, each once, by stem."""
    return {
        w.setting.stem: w.setting
        for target in targets
        for w in wanted(target)
        if w.setting is not None
    }


def read_labels(given: Sequence[str]) -> dict[str, str]:
    """Return label embeddings by kind, from texts such as "bert=FILE".

    Raises:
        UsageError: there is no such kind, or no source is given for it.
    """
    found = {}
    for text in given:
        kind, _, source = text.partition("=")
        if kind not in LABELS:
            raise unknown_name("kind of label embeddings", kind, LABELS)
        if not source:
            raise UsageError(
                f"--labels {text}: say where they come from, such as --labels {kind}=FILE "
                "(see docs/labels.md)"
            )
        found[kind] = source
    return found
