"""CMBS's own head, a direct classification head: relevance per segment, one class per clip."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avplatform.models.contracts import Encoding, Parse, Prediction, StreamPredictions

GAMMA = {"full": 0.3, "weak": 0.5}


class CMBSHead(nn.Module):
    """Predict which segments are relevant and which event the clip shows.

    Source: CMBS (CVPR 2022), section 3.4, in the form of its released code.

    Shape: relevance [B, T] (full: logits; weak: the gate, a probability); video.av [B, C], logits
    under a softmax; aux: class_scores [B, C] from the gated queries (full), raw_logits [B, C]
    before the gate (weak).
    """

    def __init__(self, *, width: int, num_classes: int, weak: bool, gamma: float | None) -> None:
        super().__init__()
        self.weak = weak
        self.gamma = GAMMA["weak" if weak else "full"] if gamma is None else gamma
        self.audio_class = nn.Linear(width, num_classes)
        self.visual_class = nn.Linear(width, num_classes)
        if weak:
            self.classifier = nn.Linear(width, num_classes, bias=False)
        else:
            self.relevance = nn.Linear(width, 1)
            self.event = nn.Linear(width, num_classes)

    def forward(self, encoding: Encoding) -> Parse:
        """Parse the encoded clip."""
        aux, fused = encoding.aux, encoding.fused
        if fused is None or "av_gate" not in aux:
            raise ValueError(
                "the cmbs head reads CMBS's gates and queries, which this encoder does not give; "
                "use form ave"
            )
        by_audio = self.audio_class(aux["audio_query"])  # (B, T, C)
        by_visual = self.visual_class(aux["visual_query"])
        extra = {"audio_class": by_audio, "visual_class": by_visual, "gate": aux["av_gate"]}
        if self.weak:
            scores = self.classifier(fused)
            extra["segment_scores"] = scores
            scores = (
                self.gamma * by_visual.sigmoid() * scores + self.gamma * by_audio.sigmoid() * scores
            )
            raw = top_mean(scores)
            video = (aux["av_gate"].unsqueeze(-1) * raw.unsqueeze(1)).amax(dim=1)
            return Parse(
                video=StreamPredictions(av=Prediction(video, activation="softmax")),
                relevance=Prediction(aux["av_gate"], "probability"),
                aux={**extra, "raw_logits": raw},
            )
        class_scores = (top_mean(by_visual) + top_mean(by_audio)) / 2
        event = self.event(fused.amax(dim=1))
        extra["event_before_scores"] = event
        return Parse(
            video=StreamPredictions(
                av=Prediction(event + self.gamma * class_scores, activation="softmax")
            ),
            relevance=Prediction(self.relevance(fused).squeeze(-1)),
            aux={**extra, "class_scores": class_scores},
        )


def top_mean(x: Tensor, count: int = 4) -> Tensor:
    """Return the mean over the largest values in time, per class: [B, T, C] -> [B, C]."""
    return torch.topk(x, min(count, x.shape[1]), dim=1).values.mean(dim=1)


class QueryClasses(nn.Module):
    """Class scores of CMBS's gated queries: the mean of the four largest in time, and of streams.

    Source: CMBS (CVPR 2022), released code, where they are a term of the loss.

    Shape: queries [B, T, D] -> [B, C].
    """

    def __init__(self, *, width: int, num_classes: int) -> None:
        super().__init__()
        self.audio, self.visual = nn.Linear(width, num_classes), nn.Linear(width, num_classes)

    def forward(self, encoding: Encoding) -> Tensor:
        """Classify the clip."""
        if "audio_query" not in encoding.aux:
            raise ValueError(
                "classify_queries reads CMBS's gated queries, which this encoder does not give; "
                "switch it off"
            )
        audio, visual = encoding.aux["audio_query"], encoding.aux["visual_query"]
        return (top_mean(self.visual(visual)) + top_mean(self.audio(audio))) / 2
