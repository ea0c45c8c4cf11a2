"""LEAP, label semantic-based projection: class texts query the segments of a clip."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avplatform.models.checks import divides
from avplatform.models.contracts import (
    Decoder,
    Encoder,
    Encoding,
    Gives,
    Needs,
    Options,
    Parse,
    Prediction,
    Publication,
    Rule,
    StreamPredictions,
    at_least_single,
    may_give,
)
from avplatform.models.decoders.cmbs_head import QueryClasses
from avplatform.models.decoders.leap_blocks import BLOCKS
from avplatform.models.decoders.leap_config import LEAPConfig
from avplatform.models.errors import UsageError

STREAMS = {"both": ("audio", "visual"), "fused": ("fused",), "all": ("audio", "visual", "fused")}
WEAK: Options = {
    "form": "pooled",
    "centre_labels": True,
    "score_gain": 4.0,
    "score_bias": -2.5,
}
"""Options with which LEAP learns from video labels when events happen (docs/weak_labels.md)."""


def _recipe(epochs: int) -> dict[str, Any]:
    return {
        "optim": {"lr": 1e-4},
        "schedule": {"name": "epoch_decay", "factor": 0.1, "every": 10},
        "epochs": epochs,
        "batch_size": 32,
    }


class LEAP(Decoder):
    """Project encoded segments onto label embeddings.

    Label queries attend to the segments of each stream, block by block. The scores of the last
    block are the segment logits; a classifier of the final label features gives the video logits.
    The form "pooled" is ours, for video labels. Its texts score the segments without a projection,
    because a projected text knows the whole clip: its scores can say what is in a clip without
    saying when. Videos are the mean of their segments' probabilities, weighted by the softmax of
    the raw scores over time (the whole clip: over time and streams).
    With `joint_space`, texts and segments come from one joint model of sound, picture and text.
    One random rotation (none, where the width is theirs) maps both, the identity maps queries and
    keys, and no block adds anything, so that scores begin as cosines between text and segment, also
    for classes without a training clip. Clips are pooled here too: the logit of a class is the mean
    of those of its segments, weighted by the softmax of the raw scores over time.
    With `clip_share`, a learned share of each segment's score is that of the clip, the mean over
    its segments weighted by their softmax: what is found in a clip is easier to find in each of its
    segments, by labels that were never trained as well.
    The weights do not depend on the number of classes, so any list of label texts can be parsed.

    Source: LEAP (ECCV 2024), Eqs. 2 to 8.

    Departs: the released code differs from Eqs. 2 to 7 in heads, in norms, and in scoring with the
    updated query; "released" follows the code and "paper" the equations.

    Shape: encoding [B, T, D'], label_embeddings [C, E] -> segment logits [B, T, C] and video logits
    [B, C] per stream; attention [B, S, C, T], the softmax over time of the last block's scores,
    for the S streams of `config.streams` in the order audio, visual, fused.
    """

    name = "leap"
    Config = LEAPConfig
    needs_labels = True
    label_mean: Tensor  # with `centre_labels`
    about = "The decoder LEAP scores every segment by the embeddings of the class texts"
    paper = Publication(
        paper="LEAP",
        venue="ECCV 2024",
        authors="Zhou et al.",
        citation="""@inproceedings{zhou2024leap,
  title = {Label-anticipated Event Disentanglement for Audio-Visual Video Parsing},
  author = {Zhou, Jinxing and Guo, Dan and Mao, Yuxin and Zhong, Yiran and Chang, Xiaojun and \
Wang, Meng},
  booktitle = {European Conference on Computer Vision},
  year = {2024}
}""",
    )
    recipes = {"leap": _recipe(30), "leap-paper": _recipe(20)}
    fixed = {
        "apart": dict(combine="none", streams="both", relevance="none", classify_queries=False),
    }

    @classmethod
    def texts_as_wide(cls, config: LEAPConfig) -> bool:
        """Return whether one rotation is the start of the maps of labels and streams."""
        return config.joint_space

    @classmethod
    def gives(cls, config: LEAPConfig) -> Gives:
        """Return scores by class texts, and the pooled probability of the clip if there is one."""
        pooled = {"pooled"} if config.form == "pooled" else set()
        return frozenset({"text scores", *pooled})

    @classmethod
    def options_for(cls, needs: Needs, encoder: type[Encoder]) -> Options:
        """Return the options; where a task needs a joint stream, it is the mean of both streams.

        No code was published for a joint stream. Training is slow there without a learned gain on
        the scores. Weak supervision, with a sigmoid per score, also starts from a learned bias, so
        that every class is improbable at first. Separate streams that learn from weak labels are
        pooled, so that the loss does not say that a class lasts as long as its clip.
        """
        if needs.streams == "apart":
            weak = WEAK if needs.supervision == "weak" else {}
            return super().options_for(needs, encoder) | weak
        options: Options = {"combine": "mean", "score_gain": 8.0}
        if needs.supervision == "weak":
            return {**options, "score_bias": -2.5}
        queries = "queries" in (encoder.gives(encoder.Config()) or ())
        return {**options, "classify_queries": True} if queries else options

    @classmethod
    def check(
        cls, config: LEAPConfig, needs: Needs, encoder: type[Encoder], encoder_config: Any
    ) -> list[Rule]:
        """Refuse streams and features that the task cannot use or the encoder does not give."""
        super().check(config, needs, encoder, encoder_config)
        streams, combine = config.streams, config.combine
        joint, fused = needs.streams == "joint", streams == "fused"
        given = encoder.gives(encoder_config)
        no_queries = ""
        if "queries" not in (given or ()):
            no_queries = f"needs gated queries, which {encoder.name} does not give; leave it out"
        no_fused = joint and streams != "both" and not may_give(given, "fused")
        logits = ("mean", "geometric")
        squashed = joint and not fused and combine not in logits and needs.logits
        classes_exclude = joint and needs.logits and needs.no_relevance
        faults = (
            (
                joint and not fused and combine == "none",
                f"combine is 'none'; {needs.asker} needs an audio-visual stream: "
                "mean, product or or",
            ),
            (squashed, f"combine '{combine}' gives probabilities, {needs.logits}"),
            (
                combine == "geometric" and not classes_exclude,
                "combine 'geometric' gives segments whose classes exclude each other, which the "
                f"losses of {needs.asker} do not read with these options; use mean",
            ),
            (no_fused, f"streams is '{streams}', but {encoder.name} has no fused stream; use both"),
            (
                joint and fused and needs.modalities,
                f"streams is 'fused': {needs.modalities}; use streams both or all",
            ),
            (config.reads == "queries" and no_queries, f"reads {no_queries}"),
            (config.classify_queries and no_queries, f"classify_queries {no_queries}"),
            (
                joint and config.classify_queries and needs.supervision != "full",
                "classify_queries is on, but no weak loss reads it; leave it out",
            ),
            (
                joint and config.form == "pooled",
                f"form is 'pooled'; {needs.asker} needs one joint stream: released or paper",
            ),
            (
                joint and config.relevance == "linear" and needs.no_relevance,
                f"relevance 'linear' {needs.no_relevance}",
            ),
            (
                fused and combine in ("geometric", "product", "or"),
                f"combine is '{combine}', but streams 'fused' is one stream; leave it out",
            ),
            (
                config.joint_space and config.form == "paper",
                "joint_space is on, but the form 'paper' normalises what its blocks add, so that "
                "they cannot begin without a change; use the form released or pooled",
            ),
            (
                config.joint_space and config.shared_video_classifier,
                "shared_video_classifier is on, but with joint_space clips are pooled from their "
                "segments; leave one of them out",
            ),
            (
                fused and config.reads == "queries",
                "reads is 'queries', but the fused stream has none; use streams both or all",
            ),
        )
        for wrong, why in faults:
            if wrong:
                raise UsageError(f"decoder_config.{why}")
        released, projects = config.form == "released", config.form != "pooled"
        reason = "the forms 'released' and 'paper'; in 'pooled', texts are not projected"
        return [
            *((name, projects, reason) for name in ("blocks", "hidden", "dropout")),
            ("attention_dropout", released, "the form 'released'; the others have none"),
            ("shared_video_classifier", not fused, "several streams"),
        ]

    def __init__(
        self, *, config: LEAPConfig, width: int, num_classes: int = 0, label_dim: int = 300
    ) -> None:
        super().__init__()
        self.config = config
        inner = config.width or width
        divides(config, "heads", inner, "width")
        self.labels = nn.Linear(label_dim, inner)
        self.streams = STREAMS[config.streams]
        block = BLOCKS[config.form]
        for name in self.streams:
            if inner != width:
                setattr(self, f"adapt_{name}", nn.Linear(width, inner))
            count = 1 if config.form == "pooled" else config.blocks
            blocks = nn.ModuleList(block(config, inner) for _ in range(count))
            setattr(self, f"{name}_blocks", blocks)
            if self._classifies(name):
                setattr(self, f"{name}_video", nn.Linear(inner, 1))
        if config.joint_space:
            self._start_in_joint_space()
        if config.official_init:
            first, *others = (b for name in self.streams for b in getattr(self, f"{name}_blocks"))
            for other in others:
                other.load_state_dict(first.state_dict())
        each = (len(self.streams),)
        if config.score_gain is not None:
            self.score_gain = nn.Parameter(torch.full(each, float(config.score_gain)))
        if config.score_bias is not None:
            self.score_bias = nn.Parameter(torch.full(each, float(config.score_bias)))
        if config.clip_share is not None:
            self.clip_share = nn.Parameter(torch.full(each, float(config.clip_share)))
        if config.score_by_text:  # zeros draw no random numbers: all else begins as without them
            self.text_gain = nn.Parameter(torch.zeros(*each, inner))
            self.text_bias = nn.Parameter(torch.zeros(*each, inner))
        if config.centre_labels:
            self.register_buffer("label_mean", torch.zeros(label_dim))
        if config.relevance == "linear":
            self.relevance = nn.Linear(width, 1)
        if config.classify_queries:
            self.query_classes = QueryClasses(width=width, num_classes=num_classes)

    def _start_in_joint_space(self) -> None:
        """Start the maps of labels and streams as one rotation, and the blocks without a change."""
        nn.init.orthogonal_(self.labels.weight)
        nn.init.zeros_(self.labels.bias)
        for name in self.streams:
            if hasattr(self, f"adapt_{name}"):
                getattr(self, f"adapt_{name}").load_state_dict(self.labels.state_dict())
            else:
                nn.init.eye_(self.labels.weight)
            for block in getattr(self, f"{name}_blocks"):
                block.start_in_joint_space()

    def forward(self, encoding: Encoding, label_embeddings: Tensor | None = None) -> Parse:
        """Parse the encoded clip with these labels."""
        if label_embeddings is None:
            raise ValueError("LEAP needs label embeddings [C, E]")
        if self.config.centre_labels:
            label_embeddings = label_embeddings - self.label_mean
            size = label_embeddings.shape[-1] ** 0.5
            label_embeddings = F.normalize(label_embeddings, dim=-1) * size
        return self.project(self.labels(label_embeddings), encoding)

    def read_labels(self, label_embeddings: Tensor) -> None:
        """Keep the mean that `centre_labels` subtracts from the embeddings of any labels."""
        if self.config.centre_labels:
            self.label_mean.copy_(label_embeddings.mean(dim=0))

    def project(self, queries: Tensor, encoding: Encoding) -> Parse:
        """Parse with label queries that already have the decoder's width.

        Shape: queries [C, D], or [B, C, D] for one set per clip.
        """
        segment: dict[str, Prediction] = {}
        video: dict[str, Prediction] = {}
        scores = []
        for index, (name, blocks, memory) in enumerate(self._streams(encoding)):
            state, raw = queries, queries
            for block in blocks:  # only the scores of the last block are used
                state, raw = block(state, memory, scored=block is blocks[-1])
            raw = at_least_single(raw)  # (B, C, T)
            if self.config.clip_share is not None:
                whole = mean_by_scores(raw, raw)[..., None]
                raw = raw + self.clip_share[index] * (whole - raw)
            scores.append(raw)
            scaled = self._scaled(raw, queries, index)
            segment[name] = Prediction(scaled.mT)  # (B, T, C)
            if self.config.form == "pooled":
                continue
            if self.config.joint_space:
                video[name] = Prediction(mean_by_scores(scaled, raw))
            else:
                classifier = self.streams[0] if self.config.shared_video_classifier else name
                whole = getattr(self, f"{classifier}_video")(state).squeeze(-1)
                video[name] = Prediction(at_least_single(whole))  # (B, C)
        stacked = torch.stack(scores, dim=1)  # (B, S, C, T)
        parse = Parse(
            segment=self._predictions(segment),
            video=self._predictions(video) if video else pooled_video(segment, stacked),
            attention=stacked.detach().softmax(dim=-1),
            queried_by_labels=True,
        )
        if self.config.relevance == "linear":
            fused = encoding.fused
            fused = (encoding.audio + encoding.visual) / 2 if fused is None else fused
            parse.relevance = Prediction(self.relevance(fused).squeeze(-1))
        if self.config.classify_queries:
            parse.aux["class_scores"] = self.query_classes(encoding)
        return parse

    def _classifies(self, name: str) -> bool:
        """Return whether a stream has a classifier of its own for the clip."""
        config = self.config
        if config.form == "pooled" or config.joint_space:
            return False
        return name == self.streams[0] or not config.shared_video_classifier

    def _scaled(self, raw: Tensor, queries: Tensor, stream: int) -> Tensor:
        """Return the scores [B, C, T] of a stream with gain and bias.

        Those of `score_by_text` are linear in the direction of the label query. The gain is an
        exponential, so that no text turns its scores around.
        """
        if self.config.score_gain is not None:
            raw = raw * self.score_gain[stream]
        if self.config.score_by_text:
            text = F.layer_norm(at_least_single(queries), queries.shape[-1:])  # ([B,] C, D)
            raw = raw * (text @ self.text_gain[stream]).exp()[..., None]
        if self.config.score_bias is not None:
            raw = raw + self.score_bias[stream]
        if self.config.score_by_text:
            raw = raw + (text @ self.text_bias[stream])[..., None]
        return raw

    def trace(self, queries: Tensor, encoding: Encoding) -> dict[str, list[dict[str, Tensor]]]:
        """Return what each block computes, to compare it with other code or to look into it.

        Shape: stream -> one dictionary per block, with "labels" [B, C, D] and raw "scores"
        [B, H, C, T].
        """
        found: dict[str, list[dict[str, Tensor]]] = {}
        for name, blocks, memory in self._streams(encoding):
            state, found[name] = queries, []
            for block in blocks:
                state, scores = block(state, memory, scored=True, per_head=True)
                found[name].append({"labels": state, "scores": scores})
        return found

    def _streams(self, encoding: Encoding) -> list[tuple[str, nn.ModuleList, Tensor]]:
        """Return name, blocks and features [B, T, D] of each stream that the labels query."""
        out = []
        for name in self.streams:
            if self.config.reads == "queries" and name != "fused":
                memory = encoding.aux.get(f"{name}_query")
            else:
                memory = getattr(encoding, name)
            if memory is None:
                wanted = "a fused stream" if name == "fused" else "gated queries"
                raise ValueError(
                    f"LEAP is set to read {wanted}, which this encoder does not give; "
                    "change streams or reads"
                )
            if self.config.reads == "rectified":
                memory = memory.relu()
            if hasattr(self, f"adapt_{name}"):
                memory = getattr(self, f"adapt_{name}")(memory)
            out.append((name, getattr(self, f"{name}_blocks"), memory))
        return out

    def _predictions(self, streams: dict[str, Prediction]) -> StreamPredictions:
        """Return the audio and visual predictions, and the audio-visual one made from them."""
        found = list(streams.values())
        both: Prediction | None = None
        if len(found) == 1:
            both = found[0]
        elif self.config.combine == "mean":
            both = Prediction(torch.stack([p.values for p in found]).mean(dim=0))
        elif self.config.combine == "geometric":
            logs = [F.logsigmoid(at_least_single(p.values)) for p in found]
            both = Prediction(torch.stack(logs).mean(dim=0), activation="softmax")
            if both.values.ndim == 2:  # of a video, whose classes do not exclude each other
                both = Prediction(both.values.exp(), "probability")
        elif self.config.combine == "product":
            every = torch.stack([p.probability for p in found]).prod(dim=0)
            both = Prediction(every, "probability")
        elif self.config.combine == "or":
            neither = torch.stack([1 - p.probability for p in found]).prod(dim=0)
            both = Prediction(1 - neither, "probability")
        return StreamPredictions(audio=streams.get("audio"), visual=streams.get("visual"), av=both)


def pooled_video(segment: dict[str, Prediction], scores: Tensor) -> StreamPredictions:
    """Return probabilities of the clip: those of its segments, averaged by the softmax of scores.

    Source: ours, with the form of MMIL's pooling (HAN, ECCV 2020, section 4.2). Departs: one
    softmax over time and streams weighs both streams, and the weights come from the scores.

    Shape: segment values [B, T, C] of S streams, raw scores [B, S, C, T] -> [B, C] each.
    """
    p = torch.stack([s.probability for s in segment.values()], dim=1).transpose(2, 3)
    streams = mean_by_scores(p, scores).unbind(dim=1)
    both = mean_by_scores(p.transpose(1, 2).flatten(2), scores.transpose(1, 2).flatten(2))
    every = dict(zip(segment, streams, strict=True)) | {"av": both}
    return StreamPredictions(**{name: Prediction(x, "probability") for name, x in every.items()})


def mean_by_scores(values: Tensor, scores: Tensor) -> Tensor:
    """Return the mean over time, weighted by the softmax of the scores: [..., T] -> [...]."""
    return (scores.softmax(dim=-1) * values).sum(dim=-1)
