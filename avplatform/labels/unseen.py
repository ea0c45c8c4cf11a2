"""Labels that a model was never trained on, scored and decided with its reference bank.

1. An unseen label gets two scores in every segment: the decoder's own, by the label's text, and a
   mixture of the linear maps to the training classes, whose weights follow from the texts.
2. Both are replaced by their quantile among the segments of the bank, as a quantile of the normal
   distribution; their mean, again as a quantile, is the label's score.
3. A clip has a score too, for which trained classes are scored in the same way, and a share of the
   highest of them is subtracted in every segment: a clip that a trained class explains well is no
   sign of a related label.
4. The task's rule turns scores into logits. Its numbers are those that serve best on training
   classes that are left out together, as many as there are unseen labels: neither the labels nor
   the texts of the classes that are left out are read for their scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import harmonic_mean
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avplatform.data.store.schema import BACKGROUND
from avplatform.labels.assumed import Assumed
from avplatform.labels.bank import (
    ReferenceBank,
    check_bank,
    linear_scores,
    mixture,
    read_bank,
)
from avplatform.labels.open import never_trained_on
from avplatform.models.av_model import AVModel, any_tensor
from avplatform.models.contracts import Encoding, Output, Parse, StreamPredictions
from avplatform.models.errors import UsageError
from avplatform.tasks.contracts import Task
from avplatform.tasks.unseen import Choice, class_f

GROUPS = 8
"""Groups of training classes that are left out, at least."""
MOST_GROUPS = 24
"""Groups at most, which bounds the time with many classes."""
MOST_OFTEN = 2.0
"""How much more often than it occurs a label may be found where it is assumed to be rare."""
UNLIKE = 0.01
"""Share of the bank's clips that count as unlike the others."""
NOWHERE = -8.0
"""The standard score of a label in a clip that is unlike all of the bank."""
RIVALS = 0.5
"""Share of a trained class's score, the highest, that unseen labels lose in the score of a clip."""
LARGEST_GROUP = 4
"""A group has at most one in so many classes."""


class WithBank(nn.Module):
    """A model that decides the labels that it was never trained on by its reference bank.

    The logits of all other labels are those of the model, to the bit.

    Args:
        model: the model.
        bank: its bank.
        task: the task that decides among the labels that are asked for.
        labels: the label embeddings [C, E], with background where the task has it; None: the
            model's own.
        unseen: the columns that the model was never trained on.
        assumed: "training" or "present".
        scores: the scores that count, for comparisons: "both", "decoder" or "linear".
        rivals: the share of the best trained class's score that is subtracted for clips.
    """

    labels: Tensor

    def __init__(
        self,
        model: AVModel,
        bank: ReferenceBank,
        task: Task,
        labels: Tensor | None,
        unseen: Sequence[int],
        *,
        assumed: Assumed,
        scores: Literal["both", "decoder", "linear"] = "both",
        rivals: float = RIVALS,
    ) -> None:
        super().__init__()
        rule = task.unseen_rule()
        assert rule is not None and model.label_embeddings is not None and unseen
        self.model, self.config, self.rule = model, model.config, rule
        self.bank, self.columns, self.kind, self.rival_share = bank, list(unseen), scores, rivals
        self.eval()  # numbers that are picked with dropout would differ from run to run
        device = any_tensor(model).device
        own = model.label_embeddings.detach()
        given = own if labels is None else labels.to(device)
        self.register_buffer("labels", given)
        names, _ = task.model_classes(model.config.decoder._type, model.config.encoder._type)
        events = [n for n, name in enumerate(names) if name != BACKGROUND]
        rare = assumed == "training" and not rule.exclusive
        self.alone = rare or set(events) <= set(self.columns)
        """Whether the rule's numbers are picked without the labels that are asked beside."""
        with torch.inference_mode():
            new = never_trained_on(model.config, bank.about["classes"])
            self.known = [n for n, name in enumerate(bank.about["classes"]) if name not in new]
            self.texts = own[: len(bank.about["classes"])].float()
            self.linear = {s: v.to(device).float() for s, v in bank.linear.items()}
            self.maps = {
                s: tuple(v.to(device) for v in (w, bank.centre[s], bank.scale[s]))
                for s, w in bank.weights.items()
            }
            self.likeness: dict[str, tuple[Tensor, Tensor]] = {}
            if assumed == "training":
                streams = ("audio", "visual", "fused")
                given_parts: dict[str, Any] = {
                    n: v.to(device).float() for n, v in bank.encoded.items()
                }
                encoding = Encoding(**{n: given_parts[n] for n in streams if n in given_parts})
                for stream, inputs in rule.encoded(encoding).items():
                    self.likeness[stream] = self._like(stream, inputs)
            self.mix = mixture(self.texts[self.known], given[self.columns].float())
            parse, beside = (bank.parse(model, texts).for_decisions for texts in (given, own))
            self.tables: dict[str, list[Tensor]] = {s: [] for s in rule.streams}
            self.scored(self.linear, parse, beside, fit=True)
            self.choice = self.choose(task, beside, assumed)
        self.about: dict[str, Any] = {"assumed": assumed, "choice": list(self.choice)}
        """What results record."""

    def forward(
        self,
        audio: Tensor,
        visual: Tensor,
        motion: Tensor | None = None,
        label_embeddings: Tensor | None = None,
    ) -> Output:
        """Parse clips with the labels of this object."""
        output = self.model(audio, visual, motion, label_embeddings=self.labels)
        parse = output.parse.for_decisions
        beside = self.model.decoder(output.encoding, self.model.label_embeddings).for_decisions
        inputs = self.rule.encoded(output.encoding)
        linear = {s: linear_scores(values, *self.maps[s]) for s, values in inputs.items()}
        scores = self.scored(linear, parse, beside, unlike=self.unlike(inputs))
        given = self.rule.apply(parse, scores, self.columns, self.choice, alone=self.alone)
        return Output(dataclasses.replace(given, by_bank=True), output.encoding)

    def scored(
        self,
        linear: dict[str, Tensor],
        parse: Parse,
        beside: Parse,
        *,
        unlike: dict[str, Tensor] | None = None,
        fit: bool = False,
    ) -> dict[str, Tensor]:
        """Return the standard scores of unseen labels: stream -> [B, T, U] and "clip" [B, U].

        With `fit` the values themselves are kept, as what others are compared with. In clips that
        are `unlike` the bank (stream -> bool [B]), no label scores.

        Args:
            linear: the scores of the linear maps: stream -> [B, T, C].
            parse: what the decoder says of the labels that are asked for.
            beside: what it says of the model's own classes.
            unlike: see above.
            fit: see above.
        """
        found, ahead = {}, {}
        for stream in self.rule.streams:
            own = getattr(parse.segment, stream).values[..., self.columns].float()
            rivals = getattr(beside.segment, stream).values[..., self.known].float()
            known = linear[stream][..., self.known]
            parts = {"decoder": (own, rivals), "linear": (known @ self.mix, known)}
            chosen = [pair for n, pair in parts.items() if self.kind in ("both", n)]
            tables = self.tables[stream]
            if fit:
                tables += [ordered(values) for pair in chosen for values in pair]
            scores = [standard(v, t) for v, t in zip(sum(chosen, ()), tables, strict=False)]
            mean, best = (torch.stack(scores[n::2]).mean(dim=0) for n in (0, 1))
            if fit:
                tables.append(ordered(mean))
            found[stream], ahead[stream] = standard(mean, tables[-1]), self._ahead(mean, best)
            if unlike is not None and stream in unlike:
                found[stream][unlike[stream]] = ahead[stream][unlike[stream]] = NOWHERE
        whole = self.rule.clip_score(ahead)[:, None]
        if fit:
            self.tables["clip"] = [ordered(whole)]
        return found | {"clip": standard(whole, self.tables["clip"][0])[:, 0]}

    def _ahead(self, own: Tensor, rivals: Tensor) -> Tensor:
        """Return scores [..., U] less a share of the highest one of the rivals [..., C]."""
        return own - self.rival_share * rivals.amax(dim=-1, keepdim=True)

    def unlike(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return which clips are unlike all of the bank: stream -> bool [B].

        A segment is as like the bank as the segment of the bank with the most similar direction,
        and a clip as the mean of its segments; `UNLIKE` of the bank's own clips are less like it
        than the limit.
        """
        return {
            stream: self._nearest(stream, inputs[stream], table) < limit
            for stream, (table, limit) in self.likeness.items()
        }

    def _nearest(self, stream: str, inputs: Tensor, table: Tensor, own: int = 0) -> Tensor:
        """Return the mean similarity of clips [B, T, D] to the nearest segments of a table [M, D].

        `own`: the clips are every so many-th clip of the table; their own segments do not count.
        """
        _, centre, scale = self.maps[stream]
        rows = F.normalize((inputs.float() - centre) / scale, dim=-1).flatten(0, 1)
        clips, length = inputs.shape[:2]
        cosine = (rows @ table.T).reshape(clips, length, -1)
        if own:
            for clip in range(clips):
                at = clip * own * length
                cosine[clip, :, at : at + length] = -1
        return cosine.amax(dim=-1).mean(dim=1)

    def _like(self, stream: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the directions of the bank's segments, and the least likeness of a clip."""
        _, centre, scale = self.maps[stream]
        table = F.normalize((inputs - centre) / scale, dim=-1).flatten(0, 1)
        step = max(1, len(inputs) // 100)
        some = inputs[::step][: len(inputs) // step]
        return table, self._nearest(stream, some, table, own=step).quantile(UNLIKE)

    def left_out(self, group: Sequence[int]) -> dict[str, Tensor]:
        """Return the standard scores of training classes on the bank, found without them.

        Shape: stream -> [N, T, U], and "clip" [N, U].
        """
        rest = [n for n in self.known if n not in set(group)]
        mix = mixture(self.texts[rest], self.texts[list(group)])
        found, ahead = {}, {}
        for stream, values in self.linear.items():
            found[stream] = own_standard(values[..., rest] @ mix)
            ahead[stream] = self._ahead(found[stream], own_standard(values[..., rest]))
        whole = self.rule.clip_score(ahead)[:, None]
        return found | {"clip": own_standard(whole)[:, 0]}

    def choose(self, task: Task, parse: Parse, assumed: Assumed) -> Choice:
        """Return the numbers of the rule that serve best on training classes that are left out.

        Args:
            task: the task that decides.
            parse: what the decoder says of the bank with the model's own labels.
            assumed: what is assumed of the labels.
        """
        device, names = self.labels.device, self.bank.about["classes"]
        truth = {s: v.to(device).float() >= 0.5 for s, v in self.bank.events.items()}
        held = torch.stack([v.any(dim=1) for v in truth.values()]).any(dim=0)  # (N, C)
        background = list(range(len(names), len(self.model.config.classes)))
        usable = [n for n in self.known if held[:, n].any()]
        size = min(len(self.columns), max(1, len(usable) // LARGEST_GROUP))
        choices = list(self.rule.choices(alone=self.alone))
        worth, often = np.zeros(len(choices)), np.zeros(len(choices))
        groups = groups_of(usable, size)
        for group in groups:
            columns = group if self.alone else self.known
            narrow = task.with_classes([names[n] for n in columns])
            at = [columns.index(n) for n in group]
            part = of_columns(parse, [*columns, *background])
            own_truth = {s: v[..., columns] for s, v in truth.items()}
            scores, rows = self.left_out(group), held[:, group].any(dim=1)
            rule = narrow.unseen_rule()
            assert rule is not None
            for number, choice in enumerate(choices):
                given = rule.apply(part, scores, at, choice, alone=self.alone)
                found = narrow.events(narrow.decide(given))
                worth[number] += self._worth(found, own_truth, rows, assumed)
                if assumed == "training":
                    share = _share({s: found[s] for s in own_truth})
                    often[number] += share / max(_share(own_truth), 1e-6)
        if assumed == "training":
            # Numbers by which labels are found more often than events occur come last.
            excess = np.maximum(often / max(1, len(groups)), MOST_OFTEN)
            worth = np.where(excess > MOST_OFTEN, -excess, worth)
        return choices[int(worth.argmax())]

    def _worth(
        self, found: dict[str, Tensor], truth: dict[str, Tensor], rows: Tensor, assumed: Assumed
    ) -> float:
        """Return how good decisions on the bank are, in percent, under an assumption."""
        if assumed == "training":
            return class_f(found, truth)
        figures = [
            self.rule.figure(
                {s: found[s][chosen] for s in truth}, {s: v[chosen] for s, v in truth.items()}
            )
            for chosen in ([rows] if self.alone else [rows, ~rows])
            if chosen.any()
        ]
        return harmonic_mean(figures)


def calibrated(
    model: AVModel,
    task: Task,
    labels: Tensor | None,
    names: Sequence[str],
    *,
    assumed: Assumed,
    asked: bool = False,
) -> WithBank | None:
    """Return a model that decides unseen labels by its bank; None if it has none, or no need.

    Args:
        model: the model.
        task: the task that decides among the labels.
        labels: their embeddings; None: the model's own.
        names: the labels of events that are asked for.
        assumed: what the rule assumes, see `Assumed`; plain: the bank is not used.
        asked: whether somebody asked for it, so that doing without a bank is an error.

    Raises:
        UsageError: a bank was asked for, but there is none, or no need.
        DataError: the bank is damaged, or was made for another model.
    """
    if assumed == "plain":
        return None
    new = set(never_trained_on(model.config, names))
    bank = read_bank(model) if new and task.unseen_rule() is not None else None
    if bank is None:
        if asked:
            raise UsageError(f"unseen is '{assumed}', but {_why_plain(model, task, new)}")
        return None
    unseen = [n for n, name in enumerate(names) if name in new]
    return WithBank(model, bank, task, labels, unseen, assumed=assumed)


def _why_plain(model: AVModel, task: Task, new: set[str]) -> str:
    """Return why no bank is used for new labels, and what to do."""
    if not new:
        return "the model was trained on all labels; leave it out"
    try:
        check_bank(model, task)
    except UsageError as error:
        return str(error)
    return "the model has no bank; make one with `avplatform bank RUN`"


def groups_of(classes: Sequence[int], size: int) -> list[list[int]]:
    """Return groups of one size that hold each class nearly equally often, if they are so many.

    There are at least `GROUPS`, and at most `MOST_GROUPS`.
    """
    rng, found = np.random.default_rng(0), list[list[int]]()
    while len(found) < GROUPS and len(classes) > 1:
        order = rng.permutation(np.asarray(classes))
        found += [
            sorted(order[at : at + size].tolist()) for at in range(0, len(order) - size + 1, size)
        ]
    return found[:MOST_GROUPS]


def _share(maps: dict[str, Tensor]) -> float:
    """Return the share of segments and labels with an event, over all streams."""
    return sum(float(values.float().mean()) for values in maps.values()) / len(maps)


def ordered(values: Tensor) -> Tensor:
    """Return the values of each column in order: [N, T, U] -> [U, N T]."""
    return values.flatten(0, 1).T.sort(dim=-1).values.contiguous()


def standard(values: Tensor, table: Tensor) -> Tensor:
    """Return the quantiles of values among those of a table, as those of the normal distribution.

    Shape: values [B, T, U], table [U, M] -> [B, T, U].
    """
    flat = values.flatten(0, 1).T.contiguous()
    rank = torch.searchsorted(table, flat, right=True).double()
    share = (rank + 0.5) / (table.shape[-1] + 1)
    return torch.special.ndtri(share).float().T.reshape(values.shape)


def own_standard(values: Tensor) -> Tensor:
    """Return the standard scores of values [N, T, U] among themselves."""
    return standard(values, ordered(values))


def of_columns(parse: Parse, columns: Sequence[int]) -> Parse:
    """Return a parse of some of its classes."""
    new: dict[str, Any] = {}
    for level in ("segment", "video"):
        found = getattr(parse, level)
        streams = {
            stream: dataclasses.replace(p, values=p.values[..., list(columns)])
            for stream in ("audio", "visual", "av")
            if (p := getattr(found, stream)) is not None
        }
        new[level] = StreamPredictions(**streams)
    return dataclasses.replace(parse, **new)
