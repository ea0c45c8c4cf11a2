"""Targets of `avplatform reproduce`: the published rows of each table, and what each one trains."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from avplatform.catalogue.published import Row, Source, published_tables
from avplatform.config.presets import preset_options
from avplatform.config.values import flat
from avplatform.models.contracts import Options
from avplatform.models.decoders import DECODERS
from avplatform.models.decoders.leap import LEAP
from avplatform.models.errors import UsageError, unknown_name
from avplatform.sweeps.sweep import slug
from avplatform.tasks.ovavel import OVAVEL

TABLES = {
    "table1": "leap-table-1",
    "table2": "leap-table-2",
    "fig3": "leap-figure-3",
    "table3": "leap-table-3",
    "table4": "leap-table-4",
    "table5": "leap-table-5",
    "fig4": "leap-figure-3",
    "curve": "elsa-log",
    OVAVEL.name: "ovavel-benchmark",
}
"""Targets by name, in the paper's order, and the published table that holds their rows.

Figure 4 has no numbers; it is drawn from the two models of Figure 3. The curve is of no paper: it
compares LEAP on MM-Pyr, epoch by epoch, with an independent run on the real LLP.
"""
ALL = tuple(name for name, table in TABLES.items() if not table.startswith("ovavel-"))
"""The targets that "all" stands for: those of LEAP."""

CURVES = {"glove": "glove-300d", "clip": "clip"}
"""Label embeddings of the runs of the target curve, and the published curve of each."""

BESIDE = {"table4": ("dhhn-table-1",)}
"""Further published tables by target: each row stands below the row whose method it begins with."""

RIVAL = ("visual", "Speech")
"""The modality and class whose labels the refinement "drop" leaves out of all clips."""

JOINT = "imagebind"
LABELS = ("glove", "bert", "clip", JOINT, "clip-clap")
"""Label embeddings of the rows; GloVe (50 dimensions) is shipped, the user gives others.

Those of ImageBind stand for the texts of whatever joint model made the features of OV-AVEL.
"""


@dataclass(kw_only=True, frozen=True)
class Setting:
    """What to train: a preset, options that override it, and label embeddings ("" for none).

    Where the training labels are refined, `rule` is the command that makes them by modality,
    "exchange", "noise-ratio" or "drop", and `base` the setting of the model that it asks; "drop"
    asks none.
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
    """A row and the setting that reproduces it; None if we cannot train the method.

    A row without figures is ours: nobody has published it.
    """

    row: Row
    setting: Setting | None

    @property
    def title(self) -> str:
        """Return the method, with our supervision if the source leaves it open."""
        if self.setting is None or not self.row.open_presets:
            return self.row.method
        return f"{self.row.method}, {preset_options(self.setting.preset)['supervision']}"


def target_names(asked: Sequence[str]) -> list[str]:
    """Return the wanted targets, each once, in the page's order; "all" is the LEAP paper's.

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
    return [name for name in TABLES if name in asked or ("all" in asked and name in ALL)]


def wanted(target: str) -> list[Wanted]:
    """Return the published rows of a target with their settings, in the source's order, then ours.

    Examples:
        >>> [w.setting.stem for w in wanted("table1")][:2]
        ['mmpyr-leap-avvp-official_blocks-1_avss-off', 'mmpyr-leap-avvp-official_avss-off']
    """
    found = []
    if target == "curve":
        (row,) = published_tables()[TABLES[target]].rows
        assert row.preset is not None
        return [
            Wanted(row=row, setting=Setting(preset=row.preset, labels=labels)) for labels in CURVES
        ]
    for row in _rows(target):
        presets = row.open_presets or ((row.preset,) if row.preset else ())
        labels = (row.label_embeddings or "GloVe").lower() if _by_texts(row.decoder) else ""
        settings: list[Setting | None] = [
            Setting(preset=preset, options=row.options, labels=labels, **_refined(row))
            for preset in presets
        ]
        found += [Wanted(row=row, setting=setting) for setting in settings or [None]]
    return found + OURS.get(target, list)()


def _rows(target: str) -> list[Row]:
    tables = published_tables()
    beside = [row for key in BESIDE.get(target, ()) for row in tables[key].rows]
    return [
        row
        for own in tables[TABLES[target]].rows
        for row in (own, *(other for other in beside if other.method.startswith(own.method)))
    ]


def _refined(row: Row) -> dict[str, Any]:
    if not row.refined:
        return {}
    return _by(row.refined["rule"], row.refined["preset"])


def _by(rule: str, preset: str) -> dict[str, Any]:
    return {"rule": rule, "base": Setting(preset=preset)}


def refined_rows() -> list[Wanted]:
    """Return the rows of Table 4 that nobody has published: label refinements combined with LEAP.

    The decoder LEAP is trained on weak labels, on its own and with labels refined by each system;
    and with the published pseudo-labels, from which a refinement takes the classes that it drops.
    "No visual Speech label" is the rival of all refinements: it asks no model.

    Examples:
        >>> [w.row.method for w in refined_rows()][0]
        'HAN, no visual Speech label'
    """
    drop: dict[str, Any] = {"rule": "drop"}
    exchange = _by("exchange", "ma-mmil-avvp-weak-official")
    ratios = _by("noise-ratio", "jomold-estimator-mmil-avvp-weak-official")
    own_pass: Options = {"task_config": {"denoise": "self"}}
    whole_pass: Options = {"task_config": {"denoise": "full"}}
    cmpae: Options = {
        "encoder_config": {"mixture": 0.8, "stem_activation": "elu"},
        "task_config": {
            "denoise": "self",
            "audio_weight": 2.0,
            "visual_weight": 0.6,
            "global_weight": 0.6,
        },
    }
    weak, masked = "weak labels", "pseudo-labels without what the refinement drops"
    rows: list[tuple[str, str, str, Options, dict[str, Any]]] = [
        ("HAN, no visual Speech label", "han-mmil-avvp-weak-official", weak, {}, drop),
        ("HAN + LEAP, weak labels", "han-leap-avvp-weak", weak, {}, {}),
        ("HAN + LEAP, no visual Speech label", "han-leap-avvp-weak", weak, {}, drop),
        ("HAN + LEAP, MA's exchange", "han-leap-avvp-weak", weak, {}, exchange),
        ("HAN + LEAP, JoMoLD's denoising", "han-leap-avvp-weak", weak, own_pass, ratios),
        (
            "HAN + LEAP, CMPAE's denoising",
            "han-leap-avvp-weak",
            f"{weak}; CMPAE's stem, two passes and weights; no mutual learning, as LEAP has no "
            "uncertainties",
            cmpae,
            ratios,
        ),
        ("MM-Pyr + LEAP, no visual Speech label", "mmpyr-leap-avvp-official", masked, {}, drop),
        ("MM-Pyr + LEAP, MA's exchange", "mmpyr-leap-avvp-official", masked, {}, exchange),
        (
            "MM-Pyr + LEAP, JoMoLD's denoising",
            "mmpyr-leap-avvp-official",
            f"{masked}; ranked by the whole model, as MM-Pyr has no pass of single streams",
            whole_pass,
            ratios,
        ),
    ]
    return [
        _ours(method, Setting(preset=preset, options=options, labels=_texts(preset), **by), note)
        for method, preset, note, options, by in rows
    ]


def open_rows() -> list[Wanted]:
    """Return LEAP's rows of OV-AVEL, which nobody has published.

    In the space of a joint model LEAP needs its text vectors. Behind the encoders of the published
    closed-set rows it reads GloVe, so these rows can be trained on any features.

    Examples:
        >>> [w.row.method for w in open_rows()]
        ['LEAP, joint space', 'AVE + LEAP', 'PSP + LEAP', 'MM-Pyramid + LEAP']
    """
    joint = Setting(preset="identity-leap-ovavel-joint", labels=JOINT)
    told = "the label texts by the joint model that made the features"
    closed = [row for row in _rows(OVAVEL.name) if row.preset and not _by_texts(row.decoder)]
    texts = "all 67 classes and background are candidates, by their texts in GloVe"
    return [
        _ours("LEAP, joint space", joint, told),
        *(
            _ours(
                f"{row.method} + LEAP",
                Setting(preset=f"{row.encoder}-{LEAP.name}-{OVAVEL.name}", labels="glove"),
                texts,
            )
            for row in closed
        ),
    ]


OURS = {"table4": refined_rows, OVAVEL.name: open_rows}
"""What gives the rows of a target that nobody has published."""


def _ours(method: str, setting: Setting, note: str) -> Wanted:
    """Return a row without published figures."""
    cell = preset_options(setting.preset)
    row = Row(
        method=method,
        source=Source(paper="avplatform", venue="", table="ours, not published"),
        features="",
        **{name: cell[name] for name in ("task", "encoder", "decoder", "supervision")},
        note=f"ours, not published; {note}",
    )
    return Wanted(row=row, setting=setting)


def _texts(preset: str) -> str:
    return "glove" if _by_texts(preset_options(preset)["decoder"]) else ""


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


def without_folders(source: str) -> str:
    """Return a source of label embeddings without the folders of this machine.

    Examples:
        >>> without_folders("joined:clap:models/clap+clip:/home/me/clip")
        'joined:clap:clap+clip:clip'
    """
    parts = source.split("+") if source.startswith("joined:") else [source]
    return "+".join(re.sub(r"^((?:[a-z]+:)*).*[/\\]", r"\1", part) for part in parts)
