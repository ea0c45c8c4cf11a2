"""Contrastive terms between audio and visual features: within a clip, and across clips.

Each compares one direction only, audio rows with visual columns, by cosine similarity.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from avplatform.models.contracts import Encoding, Parse, Publication, at_least_single
from avplatform.tasks.losses import (
    CLAMP,
    SMOOTHING,
    jomold_contrast,
    own_segment,
    segment_similarity,
)

MA = Publication(
    paper="MA",
    venue="CVPR 2021",
    authors="Wu and Yang",
    citation="""@inproceedings{wu2021exploring,
  title = {Exploring Heterogeneous Clues for Weakly-Supervised Audio-Visual Video Parsing},
  author = {Wu, Yu and Yang, Yi},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2021}
}""",
)
"""The paper that introduced the contrast within a clip and labels refined by exchanged tracks."""
Contrast = Literal["off", "ma", "jomold", "cross_video"]


def ma_contrast(
    audio: Tensor, visual: Tensor, *, temperature: float = 0.2, smoothing: float = SMOOTHING
) -> Tensor:
    """Return MA's contrast: the cross entropy with the smoothed segment of the same second.

    Source: MA (CVPR 2021), released code, where `audio` is encoded and `visual` is what the stem
    passes to the encoder.

    Shape: audio and visual [B, T, D] -> scalar, the mean over the audio segments.
    """
    logits = segment_similarity(audio, visual) / temperature  # (B, T, T)
    target = own_segment(logits.shape[-1], logits, smoothing=smoothing)
    return -(target * logits.log_softmax(dim=-1)).sum(dim=-1).mean()


def cross_video_contrast(logits: Tensor, heard: Tensor, seen: Tensor) -> Tensor:
    """Return CVCMS's contrast: a clip's audio matches the visual of all clips that share a class.

    A clip whose audio has no match adds nothing, but counts in the mean.

    Source: CVCMS, released code. Labels are compared with 0, so smoothed ones would match all.

    Shape: logits [N, N], rows audio and columns visual; heard and seen [N, C] -> scalar.
    """
    shared = shared_classes(heard, seen).to(logits.dtype)
    pairs = shared / (shared.sum(dim=1, keepdim=True) + 1e-10)  # (N, N)
    return -(pairs * logits.log_softmax(dim=1)).sum(dim=1).mean()


def shared_classes(heard: Tensor, seen: Tensor) -> Tensor:
    """Return whether the audio of a clip and the visual of a clip share a class.

    Shape: heard and seen [N, C] -> bool [N, N], rows audio and columns visual.
    """
    return (heard != 0).float() @ (seen != 0).float().T > 0


def cross_video_logits(
    encoding: Encoding, parse: Parse, heard: Tensor, seen: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Return the similarity of the audio of each clip and the visual of each clip.

    A clip's vector is the mean of its segments, weighted by where its labelled classes are looked
    for: by the decoder's attention over time (MMIL), else by its segment scores.

    Source: CVCMS, released code, for the attention over time; ours for the segment scores.

    Shape: heard and seen [N, C] -> [N, N], rows audio and columns visual.
    """
    attention = parse.aux.get("segment_attention")  # (N, T, 2, C), a softmax over time
    vectors = []
    for index, (name, labels) in enumerate((("audio", heard), ("visual", seen))):
        if attention is not None:
            # The logarithm of a softmax over time differs from its logits by a constant in time.
            scores = at_least_single(attention[:, :, index]).clamp(min=1e-30).log()
        else:
            scores = getattr(parse.segment, name).probability.logit(eps=CLAMP)  # (N, T, C)
        weights = (scores * labels[:, None, :]).sum(dim=-1).softmax(dim=1)  # (N, T)
        features = at_least_single(getattr(encoding, name))
        vectors.append((weights[:, :, None] * features).sum(dim=1))  # (N, D)
    audio, visual = (F.normalize(x, dim=-1, eps=1e-12) for x in vectors)
    return audio @ visual.T / temperature


def contrast_loss(
    form: Contrast,
    parse: Parse,
    encoding: Encoding,
    heard: Tensor,
    seen: Tensor,
    *,
    temperature: float | None = None,
    visual: Literal["stem", "encoded"] = "stem",
) -> Tensor:
    """Return the contrastive term of this form.

    Args:
        form: which one.
        parse: the predictions, which `cross_video` reads.
        encoding: the features.
        heard: the labels that hold in audio, [B, C].
        seen: the labels that hold in visual, [B, C].
        temperature: None: as published, 0.2 within a clip and 1 across clips.
        visual: the visual features that `ma` compares with.
    """
    if form == "cross_video":
        logits = cross_video_logits(encoding, parse, heard, seen, temperature=temperature or 1.0)
        return cross_video_contrast(logits, heard, seen)
    if form == "jomold":
        return jomold_contrast(encoding.audio, encoding.visual, temperature=temperature or 0.2)
    compared = encoding.aux["stem_visual"] if visual == "stem" else encoding.visual
    return ma_contrast(encoding.audio, compared, temperature=temperature or 0.2)
