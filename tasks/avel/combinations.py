"""Which encoders, decoders and options of event localization go together."""

from __future__ import annotations

from typing import Any

from avplatform.models.errors import UsageError
from avplatform.tasks.options import Rule, check_parts, refuse_unread

WITHOUT_PAIRS = ("han", "mmpyr", "ave", "cmbs")
WITHOUT_GATES = ("han", "mmpyr", "ave", "psp")
BUILT_IN = ("leap", "dch", "mmil")


def check_combination(
    config: Any, encoder: str, decoder: str, encoder_config: Any, decoder_config: Any
) -> None:
    """Refuse decoders that do not predict the audio-visual stream, losses that do not fit, and options without effect.

    Args:
        config: the task's options, an `AVELConfig`.
        encoder: its name; of encoders from outside nothing is assumed.
        decoder: its name, likewise.
        encoder_config: the encoder's options.
        decoder_config: the decoder's options.

    Raises:
        UsageError: naming the option, its value and what would be right.
    """
    if decoder == "leap":
        _check_leap(config, encoder, encoder_config, decoder_config)
    if decoder == "mmil" and not decoder_config.product:
        raise UsageError("decoder_config.product is off; avel needs the product of both streams")
    if decoder == "dch":
        _check_dch(config, encoder, encoder_config, decoder_config)
    check_parts(encoder, decoder, encoder_config, decoder_config)
    own_head = decoder == "dch" and decoder_config.form == "cmbs"
    refuse_unread(
        config, _task_rules(config, encoder, decoder, own_head=own_head), group="task_config"
    )


def _task_rules(config: Any, encoder: str, decoder: str, *, own_head: bool) -> list[Rule]:
    """Return which of the task's options are read; `own_head`: it is CMBS's."""
    full = config.supervision == "full"
    leap, head = (
        decoder == "leap" or decoder not in BUILT_IN,
        decoder == "dch" or decoder not in BUILT_IN,
    )
    texts_of_background = leap and full and config.label_set == "with_background"
    pairs, gates = full and encoder not in WITHOUT_PAIRS, full and encoder not in WITHOUT_GATES
    by_leap = "full supervision with LEAP and label_set with_background"
    return [
        (
            "head_loss",
            head and not (own_head and full),
            "the direct head (dch), but for CMBS's own in full supervision",
        ),
        ("pair_weight", pairs, "PSP in full supervision"),
        (
            "pair_target",
            pairs and config.pair_weight > 0,
            "PSP in full supervision, with a pair_weight",
        ),
        (
            "auxiliary_weight",
            gates and not own_head,
            "CMBS in full supervision under another head than its own",
        ),
        (
            "gate_loss",
            gates and (own_head or config.auxiliary_weight > 0),
            "CMBS in full supervision",
        ),
        ("weak_relevance", own_head and not full, "CMBS's own head in weak supervision"),
        ("segment_loss", texts_of_background, by_leap),
        ("video_loss", texts_of_background, by_leap),
        ("decision", texts_of_background, by_leap),
        ("weak_target", not full, "weak supervision"),
        ("weak_pool", leap and not full, "LEAP in weak supervision"),
        ("label_set", leap, "LEAP"),
        ("label_texts", leap, "LEAP"),
        ("avss_weight", config.avss != "off", "the similarity loss (avss)"),
        ("empty_pair", config.avss == "paper", "avss paper"),
    ]


def _check_dch(config: Any, encoder: str, encoder_config: Any, decoder_config: Any) -> None:
    full, dmrn = config.supervision == "full", getattr(encoder_config, "variant", "") == "dmrn"
    fits = ("ave", *{"psp": ("psp",), "cmbs": ("psp", "cmbs")}.get(encoder, ()))
    if dmrn:
        fits = ("dmrn", "psp")
    elif encoder == "cmbs" and full:  # its classes have no background, which the other forms need
        fits = ("cmbs",)
    if decoder_config.form not in fits:
        raise UsageError(
            f"decoder_config.form is '{decoder_config.form}'; behind this encoder avel takes {' or '.join(fits)}"
        )
    if decoder_config.form == "cmbs" and decoder_config.weighting == full:
        shown, supervision = ("on", "full") if full else ("off", "weak")
        raise UsageError(
            f"decoder_config.weighting is {shown}; CMBS's head has {supervision} supervision here: leave it out"
        )


def _check_leap(config: Any, encoder: str, encoder_config: Any, decoder_config: Any) -> None:
    streams, full = decoder_config.streams, config.supervision == "full"
    if streams != "fused" and decoder_config.combine == "none":
        raise UsageError(
            "decoder_config.combine is 'none'; avel needs an audio-visual stream: mean, product or or"
        )
    mixed = streams != "fused" and decoder_config.combine != "mean"
    if mixed and ((full and config.segment_loss == "ce") or config.label_set == "events"):
        raise UsageError(
            f"decoder_config.combine '{decoder_config.combine}' gives probabilities, which task_config.segment_loss "
            "'ce' and label_set 'events' cannot use; set segment_loss to bce and label_set to with_background"
        )
    fuses = encoder in ("psp", "cmbs") or getattr(encoder_config, "variant", "") == "dmrn"
    if streams != "both" and encoder in ("han", "mmpyr", "ave") and not fuses:
        raise UsageError(
            f"decoder_config.streams is '{streams}', but {encoder} has no fused stream; use both"
        )
    if streams == "fused" and "per_modality" in (config.segment_loss, config.video_loss):
        raise UsageError(
            "decoder_config.streams is 'fused': there is no loss per modality; use streams both or all"
        )
    for name, on in (
        ("reads", decoder_config.reads == "queries"),
        ("classify_queries", decoder_config.classify_queries),
    ):
        if on and encoder != "cmbs":
            raise UsageError(
                f"decoder_config.{name} needs the gated queries of cmbs; behind {encoder} leave it out"
            )
    if decoder_config.classify_queries and not full:
        raise UsageError(
            "decoder_config.classify_queries is on, but no weak loss reads it; leave it out"
        )
    if decoder_config.relevance == "linear" and not (full and config.label_set == "events"):
        raise UsageError(
            "decoder_config.relevance 'linear' is for full supervision with task_config.label_set 'events'; set both"
        )
