"""The cells of video parsing: who published them, their presets, and what they compute.

Which paper defines which cell is stated here, beside the task, because encoders and decoders know
no task.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from avplatform.models.contracts import Options
from avplatform.models.decoders.cmpae import Evidence
from avplatform.models.decoders.cosine import CosineDecoder
from avplatform.models.decoders.cvcms import ClassTokens
from avplatform.models.decoders.dch import DCH
from avplatform.models.decoders.group import GroupingDecoder
from avplatform.models.decoders.leap import LEAP
from avplatform.models.decoders.mmil import MMIL
from avplatform.models.encoders.dhhn import DHHN
from avplatform.models.encoders.han import HAN, VALOR
from avplatform.models.encoders.mgn import MGN
from avplatform.models.encoders.mmpyr import MMPyr
from avplatform.tasks.avvp.contrast import MA
from avplatform.tasks.avvp.denoise import JOMOLD
from avplatform.tasks.cells import Cells, Preset, Published

_LEAP_DIFFERS = (
    "the decoder as released, without L_avss, with plain label texts; -official adds L_avss and "
    "the published texts, -paper follows the printed equations; both use the shipped 50-d GloVe "
    "table, where the authors used 300-d (labels.embeddings)"
)
_THREE_TERMS = (
    "HAN's three BCE terms on the video label: audio, visual (smoothed to 0.95 and 0.05), "
    "whole clip"
)
_TOKENS = " + cross entropy on the class of each learned token"
_GUIDED: Options = {"task_config": {"guides": True, "gate": "modality"}}
# The refined labels themselves are a file of the user (task_config.refined).
_GUIDED_REFINED: Options = {
    "task_config": {
        "guides": True,
        "gate": "modality",
        "guide_audio_rate": 1.0,
        "guide_visual_rate": 1.0,
        "global_target": "official",
    }
}
_SOFT_OR = "video probability: mean over time; whole clip: 1 - (1 - a)(1 - v)"
_EITHER = "segment probability >= 0.5 where the video probability of either stream is >= 0.5 too"
_POOLED = "segment probability >= 0.5 where the pooled probability of the whole clip is >= 0.5 too"
_EVIDENCE_GATE = (
    "segment probability >= 0.25 where the video probability of the same stream is >= 0.45; "
    "both are 0.7 and 0.3 of the two passes of an encoder that has two"
)
_LEAP_NO_CODE = dataclasses.replace(LEAP.paper, code=False)
_AVSS: Options = {"task_config": {"avss": "official"}}
_RELEASED: Options = {
    "task_config": {"avss": "official", "label_texts": "official"},
    "decoder_config": {"form": "released", "score_gain": None, "score_bias": None},
}
_AS_WRITTEN: Options = {
    "decoder_config": {
        "form": "paper",
        "heads": 1,
        "shared_video_classifier": True,
        "score_gain": None,
        "score_bias": None,
    },
    "task_config": {"avss": "paper", "global_term": "twice"},
}
_EVIDENCE: Options = {
    "mutual_weight": 1.0,
    "gate": "modality",
    "threshold": 0.45,
    "audio_segment_threshold": 0.25,
    "visual_segment_threshold": 0.25,
}
EVIDENCE: dict[str, Options] = {
    "pseudo": _EVIDENCE,
    "weak": {
        **_EVIDENCE,
        "audio_weight": 2.0,
        "visual_weight": 0.6,
        "global_weight": 0.6,
        "contrast": "jomold",
    },
}
"""Losses and thresholds of CMPAE, for decoders with uncertainties, by supervision."""
_CMPAE_ENCODER: Options = {"mixture": 0.8, "stem_activation": "elu"}
_MEAN_OF_TEN = "+".join(
    f"{level}_{kind}"
    for level in ("segment", "event")
    for kind in ("A", "V", "AV", "Type@AV", "Event@AV")
)
_CMPAE_TASK: Options = {**EVIDENCE["weak"], "denoise": "self", "class_thresholds": "visual"}
_CMPAE: Options = {"encoder_config": _CMPAE_ENCODER, "task_config": _CMPAE_TASK}
_CMPAE_OFFICIAL: Options = {
    "encoder_config": _CMPAE_ENCODER,
    "task_config": {**_CMPAE_TASK, "threshold_epoch": 8},
    "select_by": _MEAN_OF_TEN,
}
_VALOR: Options = {
    "encoder_config": {"heads": 8, "hidden": 1024, "update": "sequential"},
    "task_config": {"objective": "valor"},
}
_VALOR_PLUS: Options = {
    "encoder_config": dict(
        width=256, heads=8, hidden=1024, layers=4, stacked=True, update="sequential"
    ),
    "task_config": {"objective": "valor"},
}

_MA: Options = {
    "task_config": {"contrast": "ma", "global_target": "official", "gate": "modality"},
}

_NOISE = "jomold-estimator"
_ESTIMATOR: Options = {
    "encoder_config": {"cross": False},
    "decoder_config": {"visual_dropout": 0.5},
    "task_config": {"contrast": "jomold", "gate": "modality"},
}
_JOMOLD: Options = {
    "decoder_config": {"visual_dropout": 0.5},
    "task_config": {
        "denoise": "self",
        "contrast": "jomold",
        "audio_weight": 2.0,
        "gate": "modality",
    },
}
_COUNTS: Options = {"task_config": {"count_terms": "add"}}
_NOTE = """\
**CMPAE.** The cells have HAN's stem and one pass. The presets add the ELU stem, the mixture of
two passes, JoMoLD's denoising (give its ratios as `task_config.noise_ratios`) and one
visual threshold per class, picked on validation with the kept weights; -official picks them with
the weights after epoch 8, as the authors did. The results keep the figures before that choice
beside the others.

**DHHN.** The authors test with two checkpoints of one run: audio from the epoch with the best mean
of segment and event A on validation, visual from the epoch with the best mean of V. A model here
has one set of weights, so the presets keep one epoch, picked by segment Type@AV; in the authors'
log of refined labels all choices are the same epoch.

**BPS.** `bps-mmil-avvp-weak` adds the likelihood of how many segments have a class. It is our own
design after the idea of BPS (ICCV 2023), of which neither text nor code was at hand: its figures
are not those of the published system.
"""

_BY_AUDIO: Options = {"select_by": "event_A"}
_CVCMS: Options = {
    "encoder_config": {"dropout": 0.4},
    "task_config": {
        "contrast": "cross_video",
        "contrast_weight": 0.85,
        "contrast_after": 2,
        "smooth_epochs": 2,
        "smooth_dropped": True,
        "global_target": "union",
    },
}
_CVCMS_OFFICIAL: Options = {**_CVCMS, "select_on": "test", "select_by": "event_Type@AV"}


def _ma(options: Options, **more: Any) -> Preset:
    return Preset(HAN, MMIL, "weak", options, recipe="ma", system="ma", **more)


def _jomold(options: Options, *, system: str = "jomold", **more: Any) -> Preset:
    return Preset(HAN, MMIL, "weak", options, recipe="jomold", system=system, **more)


def _cvcms(options: Options, **more: Any) -> Preset:
    return Preset(HAN, ClassTokens, "weak", options, by=ClassTokens, **more)


def _valor(recipe: str, system: str, options: Options, **more: Any) -> Preset:
    return Preset(HAN, MMIL, "pseudo", options, recipe=recipe, system=system, **more)


CELLS = Cells(
    title="Video parsing (avvp, LLP)",
    figures="segment-level and event-level Type@AV",
    measured="LLP: 128, 2048 and 512",
    presets=(
        Preset(HAN, MMIL, "pseudo"),
        Preset(HAN, MMIL, "weak"),
        Preset(HAN, MMIL, "weak", suffix="official", checkpoint=HAN.name),
        Preset(HAN, LEAP, "pseudo", _AVSS, by=LEAP),
        Preset(HAN, LEAP, "pseudo", _RELEASED, by=LEAP, suffix="official"),
        Preset(HAN, LEAP, "pseudo", _AS_WRITTEN, by=LEAP, recipe="leap-paper", suffix="paper"),
        Preset(HAN, LEAP, "weak", by=LEAP),
        Preset(HAN, MMIL, "weak", _COUNTS, system="bps"),
        Preset(HAN, Evidence, "weak", _CMPAE, by=Evidence),
        Preset(
            HAN,
            Evidence,
            "weak",
            _CMPAE_OFFICIAL,
            by=Evidence,
            suffix="official",
            checkpoint=Evidence.name,
        ),
        Preset(HAN, DCH, "pseudo"),
        Preset(HAN, DCH, "weak"),
        _valor("valor", "valor", _VALOR),
        _valor("valor", "valor", _VALOR, suffix="official", checkpoint="valor"),
        _valor("valor-plus", "valorplus", _VALOR_PLUS, suffix="official"),
        _valor("valor-plusplus", "valorplusplus", _VALOR_PLUS, suffix="official"),
        _ma(_MA),
        _ma({**_MA, "select_on": "last"}, suffix="official", checkpoint="ma"),
        _jomold(_JOMOLD),
        _jomold(_JOMOLD | _BY_AUDIO, suffix="official", checkpoint="jomold"),
        _jomold(_ESTIMATOR, system=_NOISE),
        _jomold(_ESTIMATOR | _BY_AUDIO, system=_NOISE, suffix="official", checkpoint=_NOISE),
        _cvcms(_CVCMS),
        _cvcms(_CVCMS_OFFICIAL, suffix="official", checkpoint=ClassTokens.name),
        Preset(MMPyr, MMIL, "pseudo"),
        Preset(MMPyr, MMIL, "weak"),
        Preset(
            MMPyr,
            MMIL,
            "weak",
            {"encoder_config": {"official_slot_order": True}},
            suffix="official",
            checkpoint=MMPyr.name,
        ),
        Preset(MMPyr, LEAP, "pseudo", _AVSS, by=LEAP),
        Preset(MMPyr, LEAP, "pseudo", _RELEASED, by=LEAP, suffix="official", checkpoint=LEAP.name),
        Preset(MMPyr, LEAP, "pseudo", _AS_WRITTEN, by=LEAP, recipe="leap-paper", suffix="paper"),
        Preset(MGN, GroupingDecoder, "weak"),
        Preset(MGN, GroupingDecoder, "weak", suffix="official", checkpoint=MGN.name),
        Preset(MGN, MMIL, "weak"),
        Preset(DHHN, MMIL, "weak", _GUIDED),
        Preset(DHHN, MMIL, "weak", _GUIDED, suffix="official", checkpoint=DHHN.name),
        Preset(DHHN, MMIL, "weak", _GUIDED_REFINED, recipe="dhhn-refined", system="dhhn-refined"),
        Preset(DHHN, LEAP, "pseudo", _AVSS, by=LEAP),
        Preset(MGN, LEAP, "pseudo", _AVSS, by=LEAP),
    ),
    published={
        (HAN, MMIL, "weak"): Published(
            (HAN.paper, MA, JOMOLD),
            "HAN's loss and decision as published, the recipe differs; MA and JoMoLD in "
            "ma-mmil-avvp-weak-official and jomold-mmil-avvp-weak-official",
            "han-mmil-avvp-weak-official",
        ),
        (HAN, MMIL, "pseudo"): Published(
            (VALOR, _LEAP_NO_CODE),
            "L_basic, as in Table 2 of LEAP; VALOR's encoder options and loss only in its preset",
            "valor-mmil-avvp-official",
        ),
        (HAN, ClassTokens, "weak"): Published(
            (ClassTokens.paper,),
            "HAN's three terms; published: the contrast across videos with mixed pairs, MA's "
            "refined labels, the epoch picked on test",
            "han-cvcms-avvp-weak-official",
        ),
        (HAN, LEAP, "pseudo"): Published((_LEAP_NO_CODE,), _LEAP_DIFFERS, "han-leap-avvp-official"),
        (HAN, Evidence, "weak"): Published(
            (Evidence.paper,),
            "HAN as published, without denoised labels; CMPAE's ELU stem, mixed passes and class "
            "thresholds are in its presets",
            "han-cmpae-avvp-weak-official",
        ),
        (MMPyr, MMIL, "weak"): Published(
            (MMPyr.paper,),
            "the streams in their order, where the published script swaps them; the recipe differs",
            "mmpyr-mmil-avvp-weak-official",
        ),
        (MMPyr, MMIL, "pseudo"): Published(
            (_LEAP_NO_CODE,), "L_basic, as in Table 2 of LEAP", None
        ),
        (MMPyr, LEAP, "pseudo"): Published(
            (LEAP.paper,), _LEAP_DIFFERS, "mmpyr-leap-avvp-official"
        ),
        (DHHN, MMIL, "weak"): Published(
            (DHHN.paper,),
            "without the guide networks, and gated by the whole clip; the presets train guides and "
            "gate by the stream's own probability, -refined for refined labels; published: audio "
            "and visual from two checkpoints of one run",
            "dhhn-mmil-avvp-weak-official",
        ),
        (MGN, GroupingDecoder, "weak"): Published(
            (MGN.paper,),
            "loss and decision as published, with probabilities of segments of at most 1; the "
            "recipe differs",
            "mgn-group-avvp-weak-official",
        ),
    },
    ours={
        MMIL: "MMIL on the encoder's audio and visual streams",
        LEAP: "LEAP as released (weak: its form pooled) on the encoder's audio and visual streams",
        Evidence: "CMPAE's evidence head on the encoder's audio and visual streams",
        DCH: "one two-layer head per modality, which no paper defines",
        ClassTokens: "CVCMS's class tokens on the encoder's audio and visual streams",
        GroupingDecoder: "MGN's grouping on the encoder's audio and visual streams; behind MGN by "
        "its tokens, elsewhere by tokens of its own",
        CosineDecoder: "cosines of each stream with the class texts, times a learned factor and "
        "with a learned bias; the texts have the encoder's width",
    },
    rules={
        (MMIL, "pseudo"): (
            "L_basic: BCE on video labels of audio, visual and whole clip, and on segment "
            "pseudo-labels",
            _POOLED,
        ),
        (MMIL, "weak"): (_THREE_TERMS, _POOLED),
        (ClassTokens, "pseudo"): ("L_basic, as for MMIL", _POOLED),
        (ClassTokens, "weak"): (_THREE_TERMS, _POOLED),
        (LEAP, "pseudo"): (
            "L_basic; the whole clip is a thresholded OR of both streams, without gradient",
            _EITHER,
        ),
        (LEAP, "weak"): (f"{_THREE_TERMS}; segments pooled by LEAP's own scores", _POOLED),
        (Evidence, "pseudo"): ("L_basic + CMPAE's mutual learning", _EVIDENCE_GATE),
        (Evidence, "weak"): (
            f"{_THREE_TERMS}, with weights 2, 0.6 and 0.6; JoMoLD's contrast within a clip; "
            "CMPAE's mutual learning",
            _EVIDENCE_GATE,
        ),
        (GroupingDecoder, "pseudo"): (f"L_basic{_TOKENS}", _POOLED),
        (GroupingDecoder, "weak"): (f"{_THREE_TERMS}{_TOKENS}", _POOLED),
        (CosineDecoder, "pseudo"): (
            "L_basic; segments pooled by the cosines themselves, each stream and both together",
            _POOLED,
        ),
        (CosineDecoder, "weak"): (f"{_THREE_TERMS}; segments pooled by the cosines", _POOLED),
        (DCH, "pseudo"): (f"L_basic; {_SOFT_OR}", _EITHER),
        (DCH, "weak"): (f"{_THREE_TERMS}; {_SOFT_OR}", _EITHER),
    },
    vectors="projected segment vectors, [2D; 3D] fused",
    maps="[2D; 3D] projected to 512, a map of one position",
    several_models="; its fully supervised model",
    note=_NOTE,
)
