"""The matrix of cells: each combination of task, encoder, decoder and supervision.

The facts about a cell are declared beside the tasks (`tasks/X/cells.py`), encoders and decoders.
This module collects them: what a cell computes, who published it, and which presets it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avplatform.config.presets import list_presets, presets_by_cell, presets_by_model
from avplatform.models.contracts import Publication
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.errors import UsageError, nearest
from avplatform.tasks.registry import TASKS

Key = tuple[str, str, str, str]
"""Task, encoder, decoder, supervision."""


@dataclass(kw_only=True, frozen=True)
class Cell:
    """One cell of the matrix.

    `status` is "published" if a paper defines what the cell computes, "ours" if this platform
    defines it (a paper may still give figures, see `figures`), and "outside" if a part was
    registered by another package. `default` says how the defaults differ from the publication, or,
    for a cell that is ours, what they are. `exact` is the preset that follows the publication
    exactly.
    """

    task: str
    encoder: str
    decoder: str
    supervision: str
    status: Literal["published", "ours", "outside"]
    publications: tuple[Publication, ...]
    figures: str | None
    reads: str
    loss: str
    decision: str
    default: str
    exact: str | None
    presets: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return the cell's name, such as avel-ave-leap-full, which `find_cell` reads."""
        return f"{self.task}-{self.encoder}-{self.decoder}-{self.supervision}"

    @property
    def source(self) -> str:
        """Return the papers that define the cell in one line, which is empty if there are none."""
        return "; ".join(map(str, self.publications))


def cells() -> list[Cell]:
    """Return all cells in the order in which tasks, encoders and decoders are registered."""
    presets = presets_by_cell()
    return [_cell(*key, presets) for key in _keys()]


def model_names() -> dict[str, str]:
    """Return the preset, or where there is none the cell, behind the name of each model.

    Such a name is ENCODER-DECODER.TASK, as timm writes MODEL.TAG. After it follow -SUPERVISION,
    unless it is the task's first one, and -official or -paper for presets that have such a variant.

    Examples:
        >>> names = model_names()
        >>> names["mmpyr-leap.avvp"], names["psp-group.avel-weak"]
        ('mmpyr-leap-avvp', 'avel-psp-group-weak')
    """
    found = {}
    for task, encoder, decoder, supervision in _keys():
        first = supervision == TASKS[task].supervisions[0]
        name = f"{encoder}-{decoder}.{task}{'' if first else '-' + supervision}"
        found[name] = f"{task}-{encoder}-{decoder}-{supervision}"
    return found | presets_by_model()


def find_cell(name: str) -> Cell:
    """Return the cell of a name such as avel-ave-leap-weak or avel/ave/leap.

    A name without a supervision means the task's first one. The name of a preset or of a model (see
    `model_names`) is good too.

    Raises:
        UsageError: there is no such cell or preset; the message names the nearest one.
    """
    models = model_names() if "." in name else {}
    name, presets = models.get(name, name), presets_by_cell()
    for cell, names in presets.items():
        if name in names:
            return _cell(*cell, presets)
    parts = name.replace("/", "-").split("-")
    if parts[0] in TASKS and len(parts) == 3:
        parts.append(TASKS[parts[0]].supervisions[0])
    known, joined = {"-".join(key): key for key in _keys()}, "-".join(parts)
    if joined in known:
        return _cell(*known[joined], presets)
    hint = nearest(name, models) or nearest(joined, known) or nearest(name, list_presets())
    raise UsageError(
        f"there is no model, cell, preset or folder '{name}'{hint} "
        "(`avplatform list` shows cells and presets)"
    )


def _keys() -> list[Key]:
    return [
        (task, encoder, decoder, supervision)
        for task in TASKS
        for encoder in ENCODERS
        for decoder in DECODERS
        for supervision in TASKS[task].supervisions
    ]


def _cell(
    task: str, encoder: str, decoder: str, supervision: str, presets: dict[Key, tuple[str, ...]]
) -> Cell:
    key = (task, encoder, decoder, supervision)
    facts, parts = TASKS[task].cells, (ENCODERS[encoder], DECODERS[decoder])
    ours = all(kind.__module__.startswith("avplatform.") for kind in (TASKS[task], *parts))
    published = facts.published.get((*parts, supervision))
    at_home = any(kind is parts[0] for kind, *_ in facts.published)
    loss, decision = facts.rule(*parts, supervision)
    return Cell(
        task=task,
        encoder=encoder,
        decoder=decoder,
        supervision=supervision,
        status="outside" if not ours else "published" if published else "ours",
        publications=published.publications if published else (),
        figures=facts.mentioned.get(parts[1]) if at_home else None,
        reads=facts.reads(parts[0]) or "the streams that the encoder wants, made by the stem",
        loss=loss,
        decision=decision,
        default=published.default if published else facts.defined(*parts, supervision),
        exact=published.exact if published else None,
        presets=presets.get(key, ()),
    )
