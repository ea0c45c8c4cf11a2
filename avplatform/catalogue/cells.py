"""The matrix: what each cell (task, encoder, decoder, supervision) computes, who published it, and which presets it has.

Composed from small tables, one entry a decoder or an encoder; only what a paper defines has an entry of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from avplatform.config.presets import list_presets, preset_options
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.errors import UsageError, nearest
from avplatform.tasks.registry import TASKS

Key = tuple[str, str, str, str]
"""Task, encoder, decoder, supervision."""


@dataclass(kw_only=True, frozen=True)
class Publication:
    """A paper that defines a cell, and whether its authors released code of it."""

    paper: str
    venue: str
    code: bool

    def __str__(self) -> str:
        return f"{self.paper} ({self.venue}){'' if self.code else ', no code'}"


@dataclass(kw_only=True, frozen=True)
class Cell:
    """One cell of the matrix.

    `status` is "published" where a paper defines what the cell computes, "ours" where this platform does (a paper may give
    figures all the same, see `figures`), and "outside" where a part was registered from outside. `default` says in what the
    cell's defaults differ from the publication (of cells that are ours: what they are); `exact` is the preset that follows the
    publication exactly.
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
        """Such as avel-ave-leap-full; `find_cell` reads it."""
        return f"{self.task}-{self.encoder}-{self.decoder}-{self.supervision}"

    @property
    def source(self) -> str:
        """Papers that define the cell, in one line; empty where there are none."""
        return "; ".join(map(str, self.publications))


def cells() -> list[Cell]:
    """Return all cells, ordered by task, encoder, decoder and supervision as they are registered."""
    presets = _presets_by_cell()
    return [
        _cell(task, encoder, decoder, supervision, presets)
        for task in TASKS
        for encoder in ENCODERS
        for decoder in DECODERS
        for supervision in TASKS[task].supervisions
    ]


def find_cell(name: str) -> Cell:
    """Return the cell that a name such as avel-ave-leap-weak, avel/ave/leap or a preset's means.

    Without a supervision it is the task's first one.

    Raises:
        UsageError: no such cell or preset; names the nearest.
    """
    presets = _presets_by_cell()
    for cell, names in presets.items():
        if name in names:
            return _cell(*cell, presets)
    parts = name.replace("/", "-").split("-")
    if parts[0] in TASKS and len(parts) == 3:
        parts.append(TASKS[parts[0]].supervisions[0])
    known = {cell.name: cell for cell in cells()}
    joined = "-".join(parts)
    if joined in known:
        return known[joined]
    hint = nearest(joined, known) or nearest(name, list_presets())
    raise UsageError(
        f"no cell, preset or folder '{name}'{hint} (`avplatform list` shows cells and presets)"
    )


class Published(NamedTuple):
    """What papers say about a cell, how our defaults differ, and the preset that is exact."""

    publications: tuple[Publication, ...]
    default: str
    exact: str | None


HAN = Publication(paper="HAN", venue="ECCV 2020", code=True)
VALOR = Publication(paper="VALOR", venue="NeurIPS 2023", code=True)
MMPYR = Publication(paper="MM-Pyramid", venue="ACM MM 2022", code=True)
LEAP = Publication(paper="LEAP", venue="ECCV 2024", code=True)
LEAP_NO_CODE = Publication(paper="LEAP", venue="ECCV 2024", code=False)
AVE = Publication(paper="AVE", venue="ECCV 2018", code=True)
PSP = Publication(paper="PSP", venue="CVPR 2021", code=True)
CMBS = Publication(paper="CMBS", venue="CVPR 2022", code=True)

_LEAP_DIFFERS = (
    "the decoder as released, without L_avss, with plain label texts; -official adds L_avss and the published texts, -paper "
    "follows the printed equations; both take the shipped 50-d GloVe table, where the authors took 300-d (labels.embeddings)"
)

PUBLISHED: dict[Key, Published] = {
    ("avvp", "han", "mmil", "weak"): Published(
        (HAN,), "loss and decision as published; the recipe differs", "han-mmil-avvp-weak-official"
    ),
    ("avvp", "han", "mmil", "pseudo"): Published(
        (VALOR, LEAP_NO_CODE),
        "L_basic, as in Table 2 of LEAP; VALOR's encoder options and loss only in its preset",
        "valor-mmil-avvp-official",
    ),
    ("avvp", "han", "leap", "pseudo"): Published(
        (LEAP_NO_CODE,), _LEAP_DIFFERS, "han-leap-avvp-official"
    ),
    ("avvp", "mmpyr", "mmil", "weak"): Published(
        (MMPYR,),
        "the streams in the right slots, which the published script exchanges; the recipe differs",
        "mmpyr-mmil-avvp-weak-official",
    ),
    ("avvp", "mmpyr", "mmil", "pseudo"): Published(
        (LEAP_NO_CODE,), "L_basic, as in Table 2 of LEAP", None
    ),
    ("avvp", "mmpyr", "leap", "pseudo"): Published(
        (LEAP,), _LEAP_DIFFERS, "mmpyr-leap-avvp-official"
    ),
    ("avel", "ave", "dch", "full"): Published(
        (AVE,),
        "cross entropy; published: soft margin of the probabilities, class-sorted batches, the remainder dropped; DMRN: "
        "dmrn-dch-avel-official",
        "ave-dch-avel-official",
    ),
    ("avel", "ave", "dch", "weak"): Published(
        (AVE,),
        "cross entropy and the best epoch; published: soft margin of the probabilities and the last epoch",
        "ave-dch-avel-weak-official",
    ),
    ("avel", "psp", "dch", "full"): Published(
        (PSP,),
        "clean pair targets; published: rests of earlier batches in them, its loader's batches, the epoch picked on test "
        "among every fifth",
        "psp-dch-avel-official",
    ),
    ("avel", "psp", "dch", "weak"): Published(
        (PSP,),
        "cross entropy against the clip's class; published: BCE against the shares of segments, its loader's batches, the "
        "epoch picked on test among every fifth",
        "psp-dch-avel-weak-official",
    ),
    ("avel", "cmbs", "dch", "full"): Published(
        (CMBS,),
        "loss and decision as published; published: the epoch picked on test",
        "cmbs-dch-avel-official",
    ),
    ("avel", "cmbs", "dch", "weak"): Published(
        (CMBS,),
        "cross entropy, and background where the gate is at most 0.5; published: soft margin of the probabilities, every "
        "segment relevant, the epoch picked on test",
        "cmbs-dch-avel-weak-official",
    ),
}
"""The cells that papers define."""

_TABLE_5 = "LEAP (ECCV 2024), Table 5, gives a figure, but neither setting nor code"
_THREE_TERMS = "HAN's three BCE terms on the video label: audio, visual (smoothed to 0.95 and 0.05), whole clip"
_SOFT_OR = "video probability: mean over time; whole clip: 1 - (1 - a)(1 - v)"

LOSSES: dict[tuple[str, str, str], str] = {
    (
        "avvp",
        "mmil",
        "pseudo",
    ): "L_basic: BCE on video labels of audio, visual and whole clip, and on segment pseudo-labels",
    ("avvp", "mmil", "weak"): _THREE_TERMS,
    (
        "avvp",
        "leap",
        "pseudo",
    ): "L_basic; the whole clip is a thresholded OR of both streams, without gradient",
    (
        "avvp",
        "leap",
        "weak",
    ): "L_basic on the video label repeated over the segments (visual smoothed to 0.95 and 0.05)",
    ("avvp", "dch", "pseudo"): f"L_basic; {_SOFT_OR}",
    ("avvp", "dch", "weak"): f"{_THREE_TERMS}; {_SOFT_OR}",
    (
        "avel",
        "mmil",
        "full",
    ): "BCE on P_a P_v of every segment and on the pooled video probability, over 28 events",
    (
        "avel",
        "mmil",
        "weak",
    ): "BCE on the pooled video probability and on the maximum over time of P_a P_v, over 28 events",
    (
        "avel",
        "leap",
        "full",
    ): "cross entropy on every segment's 29 labels + BCE on the labels that occur in the clip",
    (
        "avel",
        "leap",
        "weak",
    ): "BCE on the video logit and on the segment probability pooled over time",
    ("avel", "dch", "full"): "cross entropy on every segment's 29 labels",
    ("avel", "dch", "weak"): "cross entropy on the maximum over time of the segment logits",
}
"""By task, decoder and supervision; all with the task's default options."""

DECISIONS: dict[tuple[str, str, str], str] = {
    (
        "avvp",
        "mmil",
        "any",
    ): "segment probability >= 0.5 where the pooled probability of the whole clip is >= 0.5 too",
    (
        "avvp",
        "leap",
        "any",
    ): "segment probability >= 0.5 where the video probability of either stream is >= 0.5 too",
    (
        "avvp",
        "dch",
        "any",
    ): "segment probability >= 0.5 where the video probability of either stream is >= 0.5 too",
    (
        "avel",
        "mmil",
        "any",
    ): "the event with the largest P_a P_v where it is >= 0.5, else background",
    ("avel", "leap", "full"): "the best of 29 labels",
    (
        "avel",
        "leap",
        "weak",
    ): "the clip's best event wherever it scores no less than background; background everywhere where "
    "its video logit is the largest",
    ("avel", "dch", "any"): "the best of 29 labels",
}

HEADS: dict[tuple[str, str], tuple[str, str]] = {
    ("psp", "full"): ("cross entropy on every segment's 29 labels", "the best of 29 labels"),
    ("psp", "weak"): (
        "cross entropy on the mean over time of the weighted segment scores",
        "the best of 29 labels",
    ),
    ("cmbs", "full"): (
        "BCE on relevance and on the gate, cross entropy on the event and on the class scores of the gated queries",
        "the clip's best event where the relevance is above 0.5, else background",
    ),
    ("cmbs", "weak"): (
        "cross entropy on the maximum over time of gate x mean of the four largest scores",
        "the clip's best label of 29 where the gate is above 0.5, else background",
    ),
}
"""Loss and decision of the encoders that brought a head of their own for DCH on avel."""

HOME = {"han": "avvp", "mmpyr": "avvp", "ave": "avel", "psp": "avel", "cmbs": "avel"}
"""The task that each encoder was published for."""

_OWN_HEAD = ("ave", "psp", "cmbs")

READS = {
    ("han", "avvp"): "projected segment vectors, [2D; 3D] fused",
    ("mmpyr", "avvp"): "projected segment vectors, [2D; 3D] fused",
    ("han", "avel"): "maps averaged over their positions, then projected",
    ("mmpyr", "avel"): "maps averaged over their positions, then projected",
    ("ave", "avel"): "audio vectors and the 7x7 map",
    (
        "psp",
        "avel",
    ): "audio vectors and the 7x7 map; its fully or weakly supervised model, by supervision",
    (
        "cmbs",
        "avel",
    ): "audio vectors and the 7x7 map; its fully or weakly supervised model, by supervision",
    ("ave", "avvp"): "[2D; 3D] projected to 512, a map of one position",
    ("psp", "avvp"): "[2D; 3D] projected to 512, a map of one position; its fully supervised model",
    (
        "cmbs",
        "avvp",
    ): "[2D; 3D] projected to 512, a map of one position; its fully supervised model",
}
"""What an encoder gets from a task's features."""

OURS = {
    ("avvp", "mmil"): "MMIL on the encoder's audio and visual streams",
    ("avvp", "leap"): "LEAP as released on the encoder's audio and visual streams",
    ("avvp", "dch"): "one two-layer head a modality, which no paper defines",
    (
        "avel",
        "mmil",
    ): "MMIL over the 28 events; a segment's event is the product of both streams' probabilities",
    (
        "avel",
        "leap",
    ): "29 texts (events and background), mean of both streams' logits, a learned gain on segment scores",
    ("avel", "dch"): "AVE's head on both streams",
}
"""What the platform defines where no paper does."""


def _cell(
    task: str, encoder: str, decoder: str, supervision: str, presets: dict[Key, tuple[str, ...]]
) -> Cell:
    key = (task, encoder, decoder, supervision)
    known = (task, decoder) in OURS and (encoder, task) in READS
    published = PUBLISHED.get(key)
    status: Literal["published", "ours", "outside"] = (
        "outside" if not known else "published" if published else "ours"
    )
    loss, decision = _rules(*key)
    weakly = ""
    if (task, decoder, supervision) == ("avel", "leap", "weak"):
        pool = TASKS[task].task_options(encoder, decoder, supervision).get("weak_pool", "max")
        weakly = f" and a learned bias; segments are pooled by {pool}" + (
            ", as its own head does" if encoder in _OWN_HEAD else ""
        )
    ours = OURS.get((task, decoder), "registered from outside")
    return Cell(
        task=task,
        encoder=encoder,
        decoder=decoder,
        supervision=supervision,
        status=status,
        publications=published.publications if published else (),
        figures=_TABLE_5
        if known and task == HOME[encoder] == "avel" and decoder == "leap"
        else None,
        reads=READS.get((encoder, task), "what the encoder wants, as the stem makes it"),
        loss=loss,
        decision=decision,
        default=published.default if published else f"{ours}{weakly}",
        exact=published.exact if published else None,
        presets=presets.get(key, ()),
    )


def _rules(task: str, encoder: str, decoder: str, supervision: str) -> tuple[str, str]:
    """Return loss and decision; parts from outside get the task's rules for what they predict."""
    unknown = "by what the decoder predicts"
    loss = LOSSES.get((task, decoder, supervision), unknown)
    decision = DECISIONS.get(
        (task, decoder, supervision), DECISIONS.get((task, decoder, "any"), unknown)
    )
    if (task, decoder) == ("avel", "dch"):
        loss, decision = HEADS.get((encoder, supervision), (loss, decision))
    if (task, encoder, supervision) == ("avel", "psp", "full"):
        loss += " + 100 AVPS (similarity of the pair of streams)"
    if (task, encoder, supervision) == ("avel", "cmbs", "full") and decoder != "dch":
        queries = (
            ", cross entropy on the class scores of the gated queries" if decoder == "leap" else ""
        )
        loss += f" + BCE on CMBS's gate{queries}"
    return loss, decision


def _presets_by_cell() -> dict[Key, tuple[str, ...]]:
    found: dict[Key, tuple[str, ...]] = {}
    for name in list_presets():
        options = preset_options(name)
        key = (options["task"], options["encoder"], options["decoder"], options["supervision"])
        found[key] = (*found.get(key, ()), name)
    return found
