"""The cells of open-vocabulary event localization: what each computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avplatform.models.contracts import Options
from avplatform.models.decoders.cosine import CosineDecoder
from avplatform.models.decoders.dch import DCH
from avplatform.models.decoders.leap import LEAP
from avplatform.models.decoders.mmil import MMIL
from avplatform.models.encoders.ave import AVE
from avplatform.models.encoders.cmbs import CMBS
from avplatform.models.encoders.han import HAN
from avplatform.models.encoders.identity import Identity
from avplatform.models.encoders.mmpyr import MMPyr
from avplatform.models.encoders.psp import PSP
from avplatform.models.encoders.temporal import Temporal
from avplatform.tasks.avel.cells import CELLS as AVEL_CELLS
from avplatform.tasks.avel.cells import AVELCells
from avplatform.tasks.cells import DecoderType, EncoderType, Preset, Published

_CLOSED = "; only the classes of the training are outputs, so unseen ones are never found"
_FINE_TUNED: Options = {"encoder_config": {"input_scale": (20.0, 1.0)}}
_FINE_TUNED_OFFICIAL: Options = {
    **_FINE_TUNED,
    "decoder_config": {"rectify": "product"},
    "task_config": {"equal_scores": "first"},
    "select_on": "test",
    "select_by": "seen_average",
}
_JOINT_SPACE: Options = {
    "encoder_config": {"input_scale": (32.0, 32.0)},
    "decoder_config": {
        "width": 256,
        "blocks": 1,
        "joint_space": True,
        "centre_labels": True,
        "score_gain": 4.0,
        "score_bias": -6.0,
        "clip_share": 0.7,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    },
    "task_config": {"label_set": "events"},
    "optim": {"lr": 2e-5},
    "epochs": 5,
}
_AGREEMENT: Options = {"task_config": {"decision": "agreement"}}
_AGREEMENT_OFFICIAL: Options = {
    "task_config": {
        "decision": "agreement",
        "clip_class": "first",
        "equal_scores": "first",
        "other_hole": True,
    }
}
_NOTE = """\
**The two baselines.** `identity` + `cosine` needs no training: its presets decide for the class
that is best in both streams (`decision: agreement`), its cell by the product of both cosines.
`temporal` + `cosine` is the fine-tuned baseline; its presets restore the norms of ImageBind's
vectors (`input_scale`), which the temporal layers see and stores leave out. The texts have the
width of the features: give them as a file of the same joint model (`labels.embeddings`).

**LEAP on OV-AVEL.** Nothing is published. Training asks for the texts of the seen classes and
"other", the text of background; validation and test ask for the texts of all classes and "other".
Losses and decisions are those of LEAP on AVEL. No weight of a model that reads texts depends on the
number of classes: MGN's encoder has 25 tokens here instead of one per class (`tokens`), and options
that need the list of classes are refused.

**Closed-set controls.** DCH, MMIL and other decoders without texts have one output per class of the
training. On clips of unseen classes they can only be right where there is no event. Their figures
stand for all three groups of clips, and never with outputs for unseen classes.

**Weak supervision is ours:** the label of a clip is its class, or background if no segment has the
event. The files of OV-AVEBench name a weak setting but do not release it.
"""

_WORDS = {
    "every segment's 29 labels": "every segment's label, a seen class or background",
    "the best of 29 labels": "the best of the labels that the model is asked for",
    "best label of 29": "best label",
    "29 texts (events and background)": "the texts of all classes and of background",
    "28 events": "seen events",
}
"""What event localization says of its 28 events, and what holds here."""


def _here(text: str) -> str:
    for there, here in _WORDS.items():
        text = text.replace(there, here)
    return text


def _all_here(texts: Mapping[Any, tuple[str, str]]) -> dict[Any, tuple[str, str]]:
    return {key: (_here(loss), _here(decision)) for key, (loss, decision) in texts.items()}


class OVAVELCells(AVELCells):
    """Cells of event localization without LEAP's table of classes for gated queries."""

    def rule(self, encoder: EncoderType, decoder: DecoderType, supervision: str) -> tuple[str, str]:
        """Leave the loss on that table out."""
        loss, decision = super().rule(encoder, decoder, supervision)
        if decoder is LEAP:
            loss = loss.replace(", cross entropy on the class scores of the gated queries", "")
        return loss, decision


CELLS = OVAVELCells(
    title="Open-vocabulary event localization (ovavel, OV-AVEBench)",
    figures="mean of accuracy, segment F and event F",
    measured="OV-AVEBench: 1024 and 1024 per segment",
    presets=(
        Preset(Temporal, CosineDecoder, "full", _FINE_TUNED),
        Preset(
            Temporal,
            CosineDecoder,
            "full",
            _FINE_TUNED_OFFICIAL,
            suffix="official",
            checkpoint="ovavel",
        ),
        Preset(Identity, CosineDecoder, "full", _AGREEMENT),
        Preset(Identity, CosineDecoder, "full", _AGREEMENT_OFFICIAL, suffix="official"),
        Preset(Identity, LEAP, "full", _JOINT_SPACE, suffix="joint"),
        *(
            Preset(encoder, decoder, "full")
            for encoder, decoders in (
                (HAN, (LEAP, MMIL)),
                (MMPyr, (LEAP, MMIL)),
                (AVE, (LEAP, DCH)),
                (PSP, (LEAP, DCH)),
                (CMBS, (LEAP, DCH)),
            )
            for decoder in decoders
        ),
    ),
    published={
        (Temporal, CosineDecoder, "full"): Published(
            (Temporal.paper,),
            "negative cosines count as 0, features as they are stored, and the epoch picked on "
            "validation; published: two negative cosines give a high score, ImageBind's norms, and "
            "the epoch picked on test by seen classes",
            "temporal-cosine-ovavel-official",
        ),
        (Identity, CosineDecoder, "full"): Published(
            (Identity.paper,),
            "decides by the product of both cosines; published, and in the presets: by agreement "
            "of the streams, all agreeing segments of a clip with the class of the first",
            "identity-cosine-ovavel-official",
        ),
    },
    ours={
        decoder: _here(text) + ("" if decoder.needs_labels else _CLOSED)
        for decoder, text in AVEL_CELLS.ours.items()
    },
    rules=_all_here(AVEL_CELLS.rules),
    headed=DCH,
    heads=_all_here(AVEL_CELLS.heads),
    vectors="vectors, projected",
    maps="vectors, as maps of one position",
    several_models="; its fully or weakly supervised model, by supervision",
    note=_NOTE,
    rules_note=AVEL_CELLS.rules_note,
)
