"""What a model's training takes from papers other than those of its task, encoder and decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avplatform.models.contracts import Publication
from avplatform.models.decoders.cmpae import Evidence
from avplatform.models.decoders.cvcms import ClassTokens
from avplatform.models.encoders.dhhn import DHHN
from avplatform.models.encoders.han import VALOR
from avplatform.tasks.avvp.contrast import MA
from avplatform.tasks.avvp.denoise import JOMOLD

BPS = Publication(
    paper="BPS",
    venue="ICCV 2023",
    authors="Rachavarapu and A. N.",
    code=False,
    citation="""@inproceedings{rachavarapu2023boosting,
  title = {Boosting Positive Segments for Weakly-Supervised Audio-Visual Video Parsing},
  author = {Rachavarapu, Kranthi Kumar and A. N., Rajagopalan},
  booktitle = {IEEE/CVF International Conference on Computer Vision},
  pages = {10192--10202},
  year = {2023}
}""",
)
"""The paper behind the idea of the likelihood of counts, whose text and code were not at hand."""


def strategies(
    config: Mapping[str, Any], origins: Mapping[str, Any] | None = None
) -> list[tuple[str, Publication | None]]:
    """Return a sentence on each strategy of a model's training, and its paper if that is known.

    Args:
        config: the model's config as a dictionary, with the options of task and encoder.
        origins: how refined labels and noise ratios were made, see `Task.label_origins`.
    """
    options = config.get("task_config") or {}
    encoder, decoder = config.get("encoder") or {}, config.get("decoder") or {}
    evidence = decoder.get("_type") == Evidence.name
    contrast, refined = options.get("contrast", "off"), options.get("refined")
    rule = ((origins or {}).get("refined") or {}).get("rule", "exchange")
    used: list[tuple[bool, str, Publication | None]] = [
        (
            options.get("supervision") == "pseudo",
            "Training reads pseudo-labels of every segment in both modalities, as VALOR",
            VALOR,
        ),
        (
            encoder.get("update") == "sequential",
            "Each layer of the encoder updates one stream after the other, as in VALOR",
            VALOR,
        ),
        (
            contrast == "ma",
            "Training compares audio and visual features second by second, as MA",
            MA,
        ),
        (
            refined is not None and rule == "exchange",
            "Video labels were refined by modality with exchanged tracks, as MA",
            MA,
        ),
        (
            refined is not None and rule == "drop",
            "Some classes were left out of the video labels of one modality; no paper does this",
            None,
        ),
        (
            options.get("denoise", "off") != "off",
            "Training drops labels that the predictions of a batch contradict, as JoMoLD",
            JOMOLD,
        ),
        (
            contrast == "jomold"
            # Event localization has no option contrast: its evidence head has this one by weight.
            or (evidence and "contrast" not in options and bool(options.get("contrast_weight"))),
            "Training compares encoded audio and visual segments of a clip, as JoMoLD",
            JOMOLD,
        ),
        (
            contrast == "cross_video",
            "Training compares the streams of clips that share a class, as CVCMS",
            ClassTokens.paper,
        ),
        (
            evidence and bool(options.get("mutual_weight")),
            "Both modalities and a joint branch learn from each other, as in CMPAE",
            Evidence.paper,
        ),
        (
            options.get("class_thresholds", "off") != "off",
            "Each class has its own threshold, picked on validation, as in CMPAE",
            Evidence.paper,
        ),
        (
            encoder.get("mixture", 1) != 1,
            "The encoding mixes two passes, with and without cross attention, as in CMPAE",
            Evidence.paper,
        ),
        (
            bool(options.get("guides")),
            "A guide network per modality teaches the model, as in DHHN",
            DHHN.paper,
        ),
        (
            options.get("count_terms", "off") != "off",
            "Training adds a likelihood of how many segments have a class: our own design after "
            "the idea of BPS, whose text and code were not at hand; it is not the published system",
            BPS,
        ),
    ]
    return [(sentence, paper) for on, sentence, paper in used if on]
