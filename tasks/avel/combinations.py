"""Which options of event localization are read in a combination of encoder and decoder."""

from __future__ import annotations

from typing import Any

from avplatform.models.contracts import Gives, Rule, may_give
from avplatform.tasks.guides import guide_rules

OF_EVIDENCE = (
    "evidence_weights",
    "contrast_weight",
    "mutual_weight",
    "segment_threshold",
    "video_threshold",
)
"""Options that only the head of the evidence decoder reads."""


def task_rules(config: Any, encoder: Gives, decoder: Gives) -> list[Rule]:
    """Return which of the task's options are read.

    Nothing is assumed about third-party parts that do not declare their outputs.

    Args:
        config: the options of the task, an `AVELConfig`.
        encoder: the outputs that the encoder declares, or None.
        decoder: the outputs that the decoder declares, or None.
    """
    full = config.supervision == "full"
    leap, head = may_give(decoder, "text scores"), may_give(decoder, "label scores")
    cosine = may_give(decoder, "text distribution")
    texts, agreeing = leap or cosine, cosine and config.decision == "agreement"
    own_head = decoder is not None and "clip class" in decoder
    texts_of_background = leap and full and config.label_set == "with_background"
    pairs, gates = full and may_give(encoder, "similarity"), full and may_give(encoder, "gate")
    by_leap = "full supervision with LEAP and label_set with_background"
    direct, paired = head and not (own_head and full), pairs and config.pair_weight > 0
    gated = gates and (own_head or config.auxiliary_weight > 0)
    other_head = gates and not own_head
    evidence = may_give(decoder, "uncertainty")
    counts = may_give(decoder, "pooled") and not (head or leap)
    mutual = evidence and config.mutual_weight > 0
    return [
        *((name, evidence, "the evidence decoder") for name in OF_EVIDENCE),
        ("global_uncertainty_floor", mutual, "the evidence decoder, with a mutual_weight"),
        ("count_terms", not full and counts, "weak supervision with mmil or cmpae"),
        ("head_loss", direct, "the direct head (dch), except CMBS's own in full supervision"),
        ("pair_weight", pairs, "PSP in full supervision"),
        ("pair_target", paired, "PSP in full supervision, with a pair_weight"),
        ("auxiliary_weight", other_head, "CMBS in full supervision with a head other than its own"),
        ("gate_loss", gated, "CMBS in full supervision"),
        ("weak_relevance", own_head and not full, "CMBS's own head in weak supervision"),
        ("segment_loss", texts_of_background, by_leap),
        ("video_loss", texts_of_background, by_leap),
        (
            "decision",
            cosine if config.decision == "agreement" else texts_of_background,
            "cosine (agreement), or LEAP with full supervision and label_set with_background",
        ),
        ("clip_class", agreeing, "the decision agreement"),
        ("equal_scores", cosine, "cosines of both streams with the texts"),
        ("token_weight", may_give(decoder, "token scores"), "the decoder group (MGN)"),
        *guide_rules(config),
        ("weak_target", not full, "weak supervision"),
        ("weak_pool", leap and not full, "LEAP in weak supervision"),
        ("label_set", leap or agreeing, "LEAP, or cosine with the decision agreement"),
        ("label_texts", texts, "LEAP and cosine"),
        ("avss_weight", config.avss != "off", "the similarity loss (avss)"),
        ("empty_pair", config.avss == "paper", "avss paper"),
    ]
