"""The cells of event localization: who published them, their presets, and what they compute.

Which paper defines which cell is stated here, beside the task, because encoders and decoders know
no task.
"""

from __future__ import annotations

from typing import Any

from avplatform.models.contracts import Options
from avplatform.models.decoders.cmpae import Evidence
from avplatform.models.decoders.cosine import CosineDecoder
from avplatform.models.decoders.cvcms import ClassTokens
from avplatform.models.decoders.dch import DCH
from avplatform.models.decoders.group import GroupingDecoder
from avplatform.models.decoders.leap import LEAP
from avplatform.models.decoders.mmil import MMIL
from avplatform.models.encoders.ave import AVE
from avplatform.models.encoders.cmbs import CMBS
from avplatform.models.encoders.psp import PSP
from avplatform.tasks.cells import Cells, DecoderType, EncoderType, Preset, Published

_BEST = "the best of 29 labels"
_BEST_EVENT = "the event with the largest P_a P_v where it is >= 0.5, else background"
_EVIDENCE_LOSS = (
    "BCE on the video probabilities of audio (weight 2), visual (0.6) and joint branch (0.6), "
    "JoMoLD's contrast within a clip, CMPAE's mutual learning"
)
_EVIDENCE_DECISION = (
    "the event with the largest p_a p_v where that, P_a and P_v are >= 0.5, else background"
)
_GROUPS = (
    "BCE on the clip's events in audio, visual and both + cross entropy on the class of each "
    "learned token"
)
_LEAP_NOTE = """\
**LEAP on AVEL.** There are 29 texts, the events and "background". The audio and visual streams have
separate weights, and segment and video logits are the mean of both (`combine`). Full supervision:
cross entropy (or binary, `segment_loss`) on segments, and binary cross entropy on the labels that
occur in the clip; the decision is the best of 29. Weak supervision: binary cross entropy on the
video logit and on the pooled segment probability; the decision is the clip's best event wherever it
scores at least as high as background, and background for the whole clip where its video logit is
the largest. With `label_set: events` there are 28 texts, and a segment is relevant where the
log-sum-exp of its class logits is positive. A learned gain on the segment scores is on by default
here (nothing was published), and in the weak setting a learned bias too; both are off on AVVP. With
full supervision, the losses of CMBS on its gate and on the class scores of its queries stay behind
CMBS, and the pair loss of PSP behind PSP.
"""
_SOFT_MARGIN: Options = {
    "task_config": {"head_loss": "soft_margin"},
    "shuffle": False,
    "drop_last": True,
    "validate_every": 5,
}
_DMRN: Options = {"encoder_config": {"variant": "dmrn"}, "decoder_config": {"form": "dmrn"}}
_PSP_LOOP: Options = {"select_on": "test", "validate_every": 5, "drop_last": True}
# The training script of CMBS converts its model to float64.
_CMBS_LOOP: Options = {"select_on": "test", "precision": "float64"}


def _official(encoder: EncoderType, supervision: str, options: Options, **more: Any) -> Preset:
    return Preset(encoder, DCH, supervision, options, suffix="official", **more)


class AVELCells(Cells):
    """Cells of encoders that keep their own losses with any decoder, or pool in their own way."""

    def rule(self, encoder: EncoderType, decoder: DecoderType, supervision: str) -> tuple[str, str]:
        """Add the losses of the encoder."""
        loss, decision = super().rule(encoder, decoder, supervision)
        given = encoder.gives(encoder.Config()) or () if supervision == "full" else ()
        if "similarity" in given:
            loss += " + 100 AVPS (similarity of the pair of streams)"
        if "gate" in given and decoder is not DCH:
            queries = ", cross entropy on the class scores of the gated queries"
            loss += f" + BCE on CMBS's gate{queries if decoder is LEAP else ''}"
        return loss, decision

    def defined(self, encoder: EncoderType, decoder: DecoderType, supervision: str) -> str:
        """Add how weakly supervised segments are pooled."""
        text = super().defined(encoder, decoder, supervision)
        if decoder is not LEAP or supervision != "weak":
            return text
        own = ", as its own head does" if encoder.pooling else ""
        return f"{text} and a learned bias; segments are pooled by {encoder.pooling or 'max'}{own}"


_PRODUCTS = "BCE on P_a P_v of every segment and on the pooled video probability, over 28 events"
_MOST = (
    "BCE on the pooled video probability and on the maximum over time of P_a P_v, over 28 events"
)

CELLS = AVELCells(
    title="Event localization (avel, AVE)",
    figures="accuracy",
    measured="AVE: 128 and 7x7x512 per segment",
    presets=(
        Preset(AVE, DCH, "full"),
        _official(AVE, "full", _SOFT_MARGIN, checkpoint=AVE.name),
        Preset(AVE, DCH, "weak"),
        _official(AVE, "weak", {**_SOFT_MARGIN, "select_on": "last"}, checkpoint=AVE.name),
        Preset(AVE, DCH, "full", _DMRN, system="dmrn"),
        _official(AVE, "full", {**_SOFT_MARGIN, **_DMRN}, system="dmrn", checkpoint="dmrn"),
        Preset(PSP, DCH, "full"),
        _official(
            PSP,
            "full",
            {**_PSP_LOOP, "batch_order": "psp-full", "task_config": {"pair_target": "official"}},
            checkpoint=PSP.name,
        ),
        Preset(PSP, DCH, "weak"),
        _official(
            PSP,
            "weak",
            {
                **_PSP_LOOP,
                "batch_order": "psp-weak",
                "task_config": {"head_loss": "bce", "weak_target": "prob"},
            },
            checkpoint=PSP.name,
        ),
        Preset(CMBS, DCH, "full"),
        _official(CMBS, "full", _CMBS_LOOP, checkpoint=CMBS.name),
        Preset(CMBS, DCH, "weak", {"task_config": {"head_loss": "soft_margin"}}),
        _official(
            CMBS,
            "weak",
            {
                "task_config": {"head_loss": "soft_margin", "weak_relevance": "official"},
                **_CMBS_LOOP,
            },
            checkpoint=CMBS.name,
        ),
        *(
            Preset(encoder, decoder, supervision)
            for encoder, decoder in ((AVE, LEAP), (PSP, LEAP), (CMBS, LEAP), (AVE, MMIL))
            for supervision in ("full", "weak")
        ),
    ),
    published={
        (AVE, DCH, "full"): Published(
            (AVE.paper,),
            "cross entropy; published: soft margin of the probabilities, class-sorted batches, "
            "the remainder dropped; DMRN: dmrn-dch-avel-official",
            "ave-dch-avel-official",
        ),
        (AVE, DCH, "weak"): Published(
            (AVE.paper,),
            "cross entropy and the best epoch; published: soft margin of the probabilities and "
            "the last epoch",
            "ave-dch-avel-weak-official",
        ),
        (PSP, DCH, "full"): Published(
            (PSP.paper,),
            "clean pair targets; published: targets with values of earlier batches, its loader's "
            "batches, the epoch picked on test among every fifth",
            "psp-dch-avel-official",
        ),
        (PSP, DCH, "weak"): Published(
            (PSP.paper,),
            "cross entropy against the clip's class; published: BCE against the shares of "
            "segments, its loader's batches, the epoch picked on test among every fifth",
            "psp-dch-avel-weak-official",
        ),
        (CMBS, DCH, "full"): Published(
            (CMBS.paper,),
            "loss and decision as published; published: the epoch picked on test",
            "cmbs-dch-avel-official",
        ),
        (CMBS, DCH, "weak"): Published(
            (CMBS.paper,),
            "cross entropy, and background where the gate is at most 0.5; published: soft margin "
            "of the probabilities, every segment relevant, the epoch picked on test",
            "cmbs-dch-avel-weak-official",
        ),
    },
    mentioned={LEAP: "LEAP (ECCV 2024), Table 5, gives a figure, but neither setting nor code"},
    ours={
        MMIL: "MMIL over the 28 events; a segment's event is the product of both streams' "
        "probabilities",
        GroupingDecoder: "MGN's grouping over the 28 events; a segment's event is the product of "
        "both streams' probabilities: the clip's, times the assignment over its largest in time",
        LEAP: "29 texts (events and background), mean of both streams' logits, a learned gain on "
        "segment scores",
        Evidence: "CMPAE's evidence head over the 28 events, and a joint branch; nothing of it "
        "is released for this task",
        DCH: "AVE's head on both streams",
        CosineDecoder: "29 texts (events and background) of the encoder's width; the root of the "
        "product of both streams' cosines, stretched to [0, 1] over the texts, as published for "
        "OV-AVEL",
        ClassTokens: "CVCMS's class tokens over the 28 events; else as MMIL",
    },
    rules={
        **{(decoder, "full"): (_PRODUCTS, _BEST_EVENT) for decoder in (MMIL, ClassTokens)},
        **{(decoder, "weak"): (_MOST, _BEST_EVENT) for decoder in (MMIL, ClassTokens)},
        (GroupingDecoder, "full"): (
            f"BCE on P_a P_v of every segment, over 28 events, and {_GROUPS}",
            _BEST_EVENT,
        ),
        (GroupingDecoder, "weak"): (_GROUPS, _BEST_EVENT),
        (LEAP, "full"): (
            "cross entropy on every segment's 29 labels + BCE on the labels that occur in the clip",
            _BEST,
        ),
        (LEAP, "weak"): (
            "BCE on the video logit and on the segment probability pooled over time",
            "the clip's best event wherever it scores no less than background; background "
            "everywhere if its video logit is the largest",
        ),
        (Evidence, "full"): (
            f"{_EVIDENCE_LOSS}, BCE on P_a P_v of every segment",
            _EVIDENCE_DECISION,
        ),
        (Evidence, "weak"): (_EVIDENCE_LOSS, _EVIDENCE_DECISION),
        (CosineDecoder, "full"): (
            "cross entropy on every segment's 29 labels, with the scores as logits",
            _BEST,
        ),
        (CosineDecoder, "weak"): (
            "cross entropy on the maximum over time of the segment logits",
            _BEST,
        ),
        (DCH, "full"): ("cross entropy on every segment's 29 labels", _BEST),
        (DCH, "weak"): ("cross entropy on the maximum over time of the segment logits", _BEST),
    },
    headed=DCH,
    heads={
        (PSP, "full"): ("cross entropy on every segment's 29 labels", _BEST),
        (PSP, "weak"): (
            "cross entropy on the mean over time of the weighted segment scores",
            _BEST,
        ),
        (CMBS, "full"): (
            "BCE on relevance and on the gate, cross entropy on the event and on the class scores "
            "of the gated queries",
            "the clip's best event where the relevance is above 0.5, else background",
        ),
        (CMBS, "weak"): (
            "cross entropy on the maximum over time of gate x mean of the four largest scores",
            "the clip's best label of 29 where the gate is above 0.5, else background",
        ),
    },
    vectors="maps averaged over their positions, then projected",
    maps="audio vectors and the 7x7 map",
    several_models="; its fully or weakly supervised model, by supervision",
    note=_LEAP_NOTE,
    rules_note="PSP under full supervision adds 100 AVPS, the loss on the similarity of the "
    "streams, with every decoder.",
)
