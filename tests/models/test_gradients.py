"""The gradient of every model's loss, by finite differences in double precision.

All parameters and features are checked together, dropout off, at parameters moved away from their
symmetric start. `Kinks` makes sure that no difference crosses a kink. Four models are checked entry
by entry; the others, most of them larger, in gradcheck's fast mode: one random direction per tensor
instead of each entry, because each entry costs two runs of the model.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.autograd.gradcheck import GradcheckError
from torch.func import functional_call

from avplatform.config.build import build_task
from avplatform.config.run import default_config
from avplatform.models.av_model import AVModel
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import FeatureSpec
from avplatform.models.decoders import DECODERS
from avplatform.models.decoders.leap_config import LEAPConfig
from avplatform.models.layers.attention import FeedForward
from avplatform.tasks.batch import Batch
from avplatform.tasks.contracts import Task
from tests.models.cells import random_batch
from tests.models.kinks import Kinks

FEATURES = {
    "avvp": FeatureSpec(audio_dim=2, visual_dim=2, motion_dim=2),
    "avel": FeatureSpec(audio_dim=2, visual_dim=4, map_size=(1, 2)),
}
TINY: dict[str, dict[str, Any]] = {
    "han": {"width": 4, "heads": 1, "hidden": 3},
    "mmpyr": {"width": 3, "heads": 1, "hidden": 2, "levels": 2},
    "ave": {"lstm_width": 2, "attention_width": 2},
    "psp": {"lstm_width": 2, "attention_width": 2, "threshold": 0.25},
    "cmbs": {"width": 4, "heads": 2, "interaction_heads": 2, "layers": 1, "encoder_hidden": 2,
             "decoder_hidden": 2, "lstm_width": 2},
    "leap": {"heads": 1, "hidden": 2},
    "dhhn": {"width": 4, "heads": 1, "hidden": 3, "kernels": (1, 3), "strides": (1, 2)},
    "mgn": {"width": 4, "heads": 1, "hidden": 2, "layers": 1},
    "temporal": {"width": 3, "attention_width": 2, "hidden": 2},
    "cosine": {},
    "mmil": {},
    "group": {"heads": 1, "hidden": 2, "token_hidden": 2, "layers": 1},
    "dch": {"hidden": 2},
    "cmpae": {},
}  # fmt: skip
CLIPS, SEGMENTS = 2, 3
PAPER = {"form": "paper", "shared_video_classifier": True}
POOLED = {"hidden": LEAPConfig.hidden}  # nothing has this width, so it must keep its default
VALOR = {"update": "sequential", "heads": 2, "layers": 2, "width": 4, "hidden": 3}
SOFT_MARGIN = {"head_loss": "soft_margin"}


class Tiny(NamedTuple):
    """A model, its task, and clips to learn from."""

    model: AVModel
    task: Task
    batch: Batch

    def terms(self) -> dict[str, Tensor]:
        """The loss terms at the model's own parameters."""
        output = self.model(self.batch.audio, self.batch.visual, self.batch.motion)
        return self.task.loss(output.parse, output.encoding, self.batch)


def tiny(
    task: str,
    encoder: str,
    decoder: str,
    supervision: str,
    *,
    encoder_options: dict[str, Any] | None = None,
    decoder_options: dict[str, Any] | None = None,
    task_options: dict[str, Any] | None = None,
) -> Tiny:
    """Build a tiny cell at generic parameters.

    Video parsing has three classes; localization's losses need all 29.
    """
    torch.manual_seed(0)
    config = default_config(task, encoder, decoder, supervision)
    config = dataclasses.replace(
        config,
        encoder_config=dataclasses.replace(
            config.encoder_config, **{**TINY[encoder], **(encoder_options or {})}
        ),
        decoder_config=dataclasses.replace(
            config.decoder_config, **{**TINY[decoder], **(decoder_options or {})}
        ),
        task_config=dataclasses.replace(config.task_config, **(task_options or {})),
    )
    adapter = build_task(config)
    adapter.check(encoder, decoder, config.encoder_config, config.decoder_config)
    classes = adapter.model_classes(decoder, encoder)[0][: 3 if task == "avvp" else None]
    needs = DECODERS[decoder].needs_labels
    model_config = AVModelConfig(
        task=task,
        classes=classes,
        label_texts=classes if needs else [],
        label_dim=3,
        features=FEATURES[task],
        segments=SEGMENTS,
        encoder=config.encoder_config,
        decoder=config.decoder_config,
    )
    model = (
        AVModel(model_config, label_embeddings=torch.randn(len(classes), 3) if needs else None)
        .double()
        .eval()
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return Tiny(model, adapter, tiny_batch(task))


def tiny_batch(task: str) -> Batch:
    batch = random_batch(task, CLIPS, SEGMENTS, features=FEATURES[task]).to("cpu", torch.float64)
    if task == "avvp":
        rng = torch.Generator().manual_seed(4)
        for name in ("pseudo_audio", "pseudo_visual"):
            batch.labels[name] = (torch.rand(CLIPS, SEGMENTS, 3, generator=rng) < 0.5).to(
                torch.uint8
            )
        batch.labels["weak"] = torch.maximum(
            batch.labels["pseudo_audio"], batch.labels["pseudo_visual"]
        ).amax(dim=1)
    return batch


def check_gradient(built: Tiny, *, fast: bool = False) -> Kinks:
    """Compare the gradient with finite differences; return the kinks that were watched.

    Raises:
        GradcheckError: they differ by more than 1e-6 and 1e-5 of the value (rounding gives 1e-7).
        AssertionError: a difference crosses a kink.
    """
    model, task, batch = built
    names, parameters = zip(*model.named_parameters(), strict=True)
    features = [x for x in (batch.audio, batch.visual, batch.motion) if x is not None]
    kinks = Kinks()

    def loss(*tensors: Tensor) -> Tensor:
        state = dict(zip(names, tensors, strict=False))
        with kinks:
            output = functional_call(model, state, tensors[len(names) :])
            return torch.stack(list(task.loss(output.parse, output.encoding, batch).values())).sum()

    tensors = [x.detach().clone().requires_grad_() for x in (*parameters, *features)]
    gradients = torch.autograd.grad(loss(*tensors), tensors, allow_unused=True)
    assert [n for n, g in zip(names, gradients, strict=False) if g is None] == []  # all take part
    assert gradcheck(loss, tensors, eps=1e-5, atol=1e-6, rtol=1e-5, fast_mode=fast)
    return kinks


ENTRY_BY_ENTRY = {
    "HAN": ("avvp", "han", "mmil", "weak", {}),
    "DCH on parsing": ("avvp", "han", "dch", "weak", {}),
    "AVE": ("avel", "ave", "dch", "full", {"task_options": SOFT_MARGIN}),
    "PSP": ("avel", "psp", "dch", "full", {}),
}  # fmt: skip
BY_DIRECTION = {
    "DMRN": ("avel", "ave", "dch", "full", {
        "encoder_options": {"variant": "dmrn"}, "decoder_options": {"form": "dmrn"},
        "task_options": SOFT_MARGIN}),
    "PSP, weak": ("avel", "psp", "dch", "weak", {}),
    "VALOR, norm after": ("avvp", "han", "mmil", "pseudo", {
        "encoder_options": {**VALOR, "norm": "post", "layers": 1},
        "task_options": {"objective": "valor"}}),
    "AVE, weak": ("avel", "ave", "dch", "weak", {"task_options": SOFT_MARGIN}),
    "VALOR, norm before, two layers": ("avvp", "han", "mmil", "pseudo", {
        "encoder_options": {**VALOR, "norm": "pre"}, "task_options": {"objective": "valor"}}),
    "HAN + LEAP": ("avvp", "han", "leap", "pseudo", {"task_options": {"avss": "official"}}),
    "HAN + LEAP of the paper": ("avvp", "han", "leap", "pseudo", {
        "decoder_options": PAPER, "task_options": {"avss": "paper", "global_term": "twice"}}),
    "MM-Pyr": ("avvp", "mmpyr", "mmil", "weak", {}),
    "MM-Pyr + LEAP": ("avvp", "mmpyr", "leap", "pseudo", {"task_options": {"avss": "official"}}),
    "MM-Pyr + LEAP of the paper": ("avvp", "mmpyr", "leap", "pseudo", {
        "decoder_options": PAPER, "task_options": {"avss": "paper", "global_term": "twice"}}),
    "DHHN": ("avvp", "dhhn", "mmil", "weak", {}),
    # A hard assignment has the gradient of another function, the soft one.
    "MGN": ("avvp", "mgn", "group", "weak", {"encoder_options": {"time_assignment": "soft"}}),
    "MGN on localization": ("avel", "mgn", "group", "full", {
        "encoder_options": {"time_assignment": "soft"}}),
    "CMBS": ("avel", "cmbs", "dch", "full", {}),
    "CMBS, weak": ("avel", "cmbs", "dch", "weak", {"task_options": SOFT_MARGIN}),
    "HAN + LEAP pooled": ("avvp", "han", "leap", "weak", {"decoder_options": POOLED}),
    "LEAP on localization": ("avel", "ave", "leap", "full", {"task_options": {"avss": "paper"}}),
    "LEAP on localization, weak": ("avel", "ave", "leap", "weak", {}),
    "LEAP on localization, events": ("avel", "ave", "leap", "full",
                                     {"task_options": {"label_set": "events"}}),
    # Mutual learning holds one side fixed, which a finite difference does not.
    "CMPAE": ("avvp", "han", "cmpae", "weak", {
        "encoder_options": {"mixture": 0.8, "stem_activation": "elu"},
        "task_options": {"mutual_weight": 0.0}}),
    "evidence on localization": ("avel", "han", "cmpae", "full",
                                 {"task_options": {"mutual_weight": 0.0}}),
    "temporal + cosine": ("avel", "temporal", "cosine", "full", {
        "encoder_options": {"adjacency": True, "window": 2, "power_norm": True},
        "decoder_options": {"temperature": "learned"}}),
    "temporal + cosine on parsing": ("avvp", "temporal", "cosine", "weak", {}),
    "MMIL on localization": ("avel", "han", "mmil", "full", {}),
    "MMIL on localization, weak": ("avel", "han", "mmil", "weak", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ENTRY_BY_ENTRY)
def test_each_entry_of_the_gradient_is_right(name):
    *cell, options = ENTRY_BY_ENTRY[name]
    check_gradient(tiny(*cell, **options))


SLOW = "MM-Pyr + LEAP of the paper"  # whose parts other entries cover


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n == SLOW else ()) for n in BY_DIRECTION]
)
def test_the_gradient_is_right_along_a_random_direction_of_each_tensor(name):
    *cell, options = BY_DIRECTION[name]
    check_gradient(tiny(*cell, **options), fast=True)


class _WrongRelu(torch.autograd.Function):
    """A rectifier whose gradient is one percent too large."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.relu()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x > 0) * 1.01


@pytest.mark.parametrize("fast", [False, True])
def test_a_gradient_that_is_one_percent_off_is_caught(monkeypatch, fast):
    monkeypatch.setattr(
        FeedForward, "forward", lambda self, x: self.outer(_WrongRelu.apply(self.inner(x)))
    )
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        check_gradient(tiny("avvp", "han", "mmil", "weak"), fast=fast)


def test_a_difference_across_a_kink_is_caught():
    built = tiny("avvp", "han", "mmil", "weak")
    inner = built.model.encoder.layers[0].feedforward.inner
    with torch.no_grad():
        inner.weight[0] = 0
        inner.bias[0] = 1e-8
    with pytest.raises(AssertionError, match="crosses a kink of relu"):
        check_gradient(built)


def test_the_watched_kinks_are_those_of_the_models():
    def watched(*cell, **options) -> set[str]:
        built, kinks = tiny(*cell, **options), Kinks()
        with kinks:
            built.terms()
        return set(kinks.watched)

    assert watched("avvp", "han", "leap", "pseudo", task_options={"avss": "official"}) == {
        "relu", "clamp", "amax", "ge", "normalize"}  # fmt: skip
    assert watched("avel", "psp", "dch", "full") == {"relu", "gt", "normalize"}
    assert watched("avel", "cmbs", "dch", "full") == {"relu", "amax", "topk"}
    assert watched("avel", "ave", "dch", "weak", task_options=SOFT_MARGIN) == {"relu", "amax"}


def gradients_of(value: Tensor, model: torch.nn.Module) -> dict[str, Tensor]:
    """Gradients of all parameters, zero where `value` does not depend on one."""
    if not value.requires_grad:
        return {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(
        zip(
            names,
            torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True),
            strict=True,
        )
    )


def nonzero(gradients: dict[str, Tensor]) -> set[str]:
    return {name for name, g in gradients.items() if g.any()}


def test_the_hard_or_of_leap_teaches_nothing():
    built = tiny("avvp", "han", "leap", "pseudo")
    terms = built.terms()
    assert terms["global"] > 0 and nonzero(gradients_of(terms["global"], built.model)) == set()
    soft = tiny("avvp", "han", "dch", "weak")
    assert "decoder.audio.0.weight" in nonzero(gradients_of(soft.terms()["global"], soft.model))


def test_similarity_targets_made_of_predictions_teach_the_encoder_only():
    built = tiny(
        "avvp", "han", "leap", "weak", decoder_options=POOLED, task_options={"avss": "official"}
    )
    found = nonzero(gradients_of(built.terms()["similarity"], built.model))
    assert found and all(name.startswith(("stem.", "encoder.")) for name in found)


def test_probabilities_beyond_the_clamp_teach_nothing():
    built = tiny("avvp", "han", "mmil", "weak")
    with torch.no_grad():
        built.model.decoder.classifier.bias.fill_(60.0)  # every probability is 1 to the last bit
    terms = built.terms()
    for name in ("audio", "visual"):
        assert terms[name].isfinite() and nonzero(gradients_of(terms[name], built.model)) == set()
    # The prediction of both streams together is not an average: it falls short of 1, or passes it.
    assert nonzero(gradients_of(terms["global"], built.model))
    check_gradient(built, fast=True)  # and finite differences agree


def test_pruned_pairs_of_segments_teach_nothing():
    built = tiny("avel", "psp", "dch", "weak")
    batch = built.batch
    gamma = built.model(batch.audio, batch.visual).encoding.aux["gamma_va"]
    pruned = gamma == 0
    assert pruned.any() and not pruned.all()
    assert nonzero(gradients_of(gamma[pruned].sum(), built.model)) == set()
    assert "encoder.propagation.audio_key.weight" in nonzero(
        gradients_of(gamma[~pruned].square().sum(), built.model)
    )
