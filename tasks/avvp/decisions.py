"""What is decided about clips, and the scores behind it."""

from __future__ import annotations

import torch
from torch import Tensor

from avplatform.models.contracts import Parse
from avplatform.tasks.avvp.config import AVVPConfig
from avplatform.tasks.avvp.losses import global_decision
from avplatform.tasks.avvp.metrics import STREAMS


def decisions_of(parse: Parse, config: AVVPConfig) -> dict[str, Tensor]:
    """Return the decisions on the segments of each stream, and on the whole clip.

    Shape: "audio" and "visual" bool [B, T, C]; "video" bool [B, C].
    """
    video = global_decision(parse, threshold=config.threshold)
    found = {"video": video}
    for name, gate in gates(parse, video, config).items():
        segments = getattr(parse.segment, name).probability >= config.limit(name, "segment")
        found[name] = segments & gate[:, None, :]
    return found


def evidence_of(parse: Parse, video: Tensor, config: AVVPConfig) -> dict[str, Tensor]:
    """Return the ungated probabilities of segments, those of whole videos, and the gates.

    Shape: video bool [B, C] -> "audio" and "visual" [B, T, C]; "video_audio" and "video_visual"
    [B, C]; "gate_audio" and "gate_visual" bool [B, C].
    """
    found = {}
    for name, gate in gates(parse, video, config).items():
        found[name] = getattr(parse.segment, name).probability
        found[f"video_{name}"] = getattr(parse.video, name).probability
        found[f"gate_{name}"] = gate
    return found


def gates(parse: Parse, video: Tensor, config: AVVPConfig) -> dict[str, Tensor]:
    """Return which classes the segments of each stream may have, by the option `gate`.

    * global: the decision on the whole clip;
    * modality: the video probability of the same stream reaches its threshold, or that of the class
      (JoMoLD, CMPAE);
    * none: every class.

    Args:
        parse: the predictions.
        video: the decision on the whole clip.
        config: the options of the task.

    Shape: video bool [B, C] -> stream -> bool [B, C].
    """
    if config.gate == "global":
        return dict.fromkeys(STREAMS, video)
    if config.gate == "none":
        return dict.fromkeys(STREAMS, torch.ones_like(video))
    found = {name: getattr(parse.video, name).probability for name in STREAMS}
    return {name: p >= video_limit(name, p, config) for name, p in found.items()}


def video_limit(stream: str, like: Tensor, config: AVVPConfig) -> Tensor | float:
    """Return the threshold of a stream's videos, or one per class [C] as `like` holds numbers."""
    limits = getattr(config, f"{stream}_class_thresholds")
    return like.new_tensor(limits) if limits else config.limit(stream, "video")
