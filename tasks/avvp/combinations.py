"""Which options of video parsing are read with a decoder."""

from __future__ import annotations

from avplatform.models.contracts import Gives, Rule, may_give
from avplatform.models.encoders.han import HAN
from avplatform.tasks.avvp.config import OF_VIDEOS, AVVPConfig
from avplatform.tasks.guides import guide_rules


def task_rules(config: AVVPConfig, given: Gives) -> list[Rule]:
    """Return which of the task's options are read.

    Options that a decoder may read that does not declare its outputs count as read.

    Args:
        config: the options of the task.
        given: the outputs that the decoder declares, or None.
    """
    weak = config.supervision == "weak"
    pooled = config.objective in (HAN.name, "valor", "mil") or (
        config.objective == "auto" and weak and given is not None and "pooled" in given
    )
    return [
        ("audio_smooth", weak, "weak supervision"),
        ("visual_smooth", weak, "weak supervision"),
        ("noise_ratios", config.denoise != "off", "denoise"),
        ("denoise_rounding", config.denoise != "off", "denoise"),
        ("denoise_warm_up", config.denoise != "off", "denoise"),
        (
            "denoise_warm_up_epochs",
            config.denoise != "off" and config.denoise_warm_up != "off",
            "denoise_warm_up",
        ),
        ("smooth_epochs", weak, "weak supervision"),
        ("smooth_dropped", weak, "weak supervision"),
        ("global_weight", pooled, "the objectives han, valor and mil (L_basic: global_term)"),
        ("contrast_weight", config.contrast != "off", "a contrast"),
        ("contrast_temperature", config.contrast != "off", "a contrast"),
        ("contrast_after", config.contrast != "off", "a contrast"),
        ("contrast_visual", config.contrast == "ma", "the contrast ma"),
        ("segment_weight", not pooled, "L_basic (objective basic)"),
        ("global_term", not pooled, "L_basic (objective basic)"),
        ("pooling", config.objective == "mil", "the objective mil"),
        *guide_rules(config),
        ("apart_weight", config.guides, "guides"),
        ("token_weight", may_give(given, "token scores"), "the decoder group (MGN)"),
        ("avss_weight", config.avss != "off", "the similarity loss (avss)"),
        ("avss_eps", config.avss == "official", "avss official"),
        ("empty_pair", config.avss == "paper", "avss paper"),
        ("label_texts", may_give(given, "text scores"), "LEAP"),
        ("count_terms", weak, "weak supervision"),
        ("count_weight", config.count_terms != "off", "count_terms"),
        ("mutual_weight", may_give(given, "uncertainty"), "decoders with uncertainties"),
        ("global_uncertainty_floor", config.mutual_weight > 0, "a mutual_weight"),
        ("threshold_epoch", config.class_thresholds != "off", "class_thresholds"),
        *((name, config.gate == "modality", "the gate modality") for name in OF_VIDEOS),
    ]
