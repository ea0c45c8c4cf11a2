"""A wrong detail in the product turns its golden cases red: one or more mutations a group."""

from __future__ import annotations

import pytest
import torch

from avplatform.models.contracts import Prediction
from avplatform.models.decoders.leap_blocks import LEAPBlock, head_scores
from avplatform.models.decoders.mmil import MMIL
from avplatform.models.encoders.ave import AVE
from avplatform.models.encoders.han import HAN, HANLayer
from avplatform.models.layers.attention import SeparateAttention
from avplatform.models.layers.audio_guided_attention import AudioGuidedAttention
from avplatform.models.official import han as official_han
from avplatform.tasks import losses
from avplatform.tasks.avel import losses as avel_losses
from avplatform.tasks.avvp import losses as avvp_losses
from avplatform.tasks.avvp import metrics
from avplatform.training import optim, step
from tests.parity import cases_models, cases_numbers, cases_training
from tests.parity.golden_case import DEFAULT_GOLDEN, Case
from tests.parity.registry import HANDLERS


def fails(name: str) -> None:
    """The case must not be met."""
    with pytest.raises(AssertionError, match=name):
        HANDLERS[name](Case(name, DEFAULT_GOLDEN))


def set_eps(monkeypatch, owner, name):
    """Build every layer norm of a module with another epsilon."""
    real = owner.__init__

    def init(self, *args, **kwargs):
        real(self, *args, **kwargs)
        for module in self.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = 1e-2

    monkeypatch.setattr(owner, "__init__", init)


@pytest.mark.parametrize(
    ("owner", "case"), [(HANLayer, "han_mmil"), (LEAPBlock, "leap_decoder_n1")]
)
def test_another_norm_epsilon(monkeypatch, owner, case):
    set_eps(monkeypatch, owner, "eps")
    fails(case)


def test_han_updates_one_after_the_other(monkeypatch):
    monkeypatch.setattr(official_han.HANReader, "update", "sequential")
    fails("han_mmil")


@pytest.mark.parametrize("case", ["valor_han_pre", "valor_han_post"])
def test_valor_updates_in_parallel(monkeypatch, case):
    monkeypatch.setattr(official_han.VALORReader, "update", "parallel")
    fails(case)


def test_valor_prenorm_without_final_norms(monkeypatch):
    real = HAN.forward

    def forward(self, audio, visual):
        if self.config.norm == "pre":
            self.final_norm_audio = self.final_norm_visual = torch.nn.Identity()
        return real(self, audio, visual)

    monkeypatch.setattr(HAN, "forward", forward)
    fails("valor_han_pre")


def test_mmil_with_its_softmax_axes_exchanged(monkeypatch):
    real = torch.Tensor.softmax
    monkeypatch.setattr(
        torch.Tensor, "softmax", lambda self, dim: real(self, dim={1: 2, 2: 1}.get(dim, dim))
    )
    fails("mmil_pool")


def test_mmil_with_one_modality_twice(monkeypatch):
    real = MMIL.forward

    def forward(self, encoding, label_embeddings=None):
        encoding.visual = encoding.audio
        return real(self, encoding)

    monkeypatch.setattr(MMIL, "forward", forward)
    fails("mmil_pool")


def test_leap_with_normalised_keys(monkeypatch):
    real = SeparateAttention.project_memory
    normal = torch.nn.functional.layer_norm
    monkeypatch.setattr(
        SeparateAttention, "project_memory", lambda self, m: real(self, normal(m, m.shape[-1:]))
    )
    fails("leap_decoder_n2")


@pytest.mark.parametrize("normalised", [False, True])
def test_leap_scored_with_the_old_query(monkeypatch, normalised):
    real = LEAPBlock.forward

    def forward(self, labels, memory, **options):
        updated, scores = real(self, labels, memory, **options)
        query = self.attention_norm(labels) if normalised else labels
        old = head_scores(
            self.attention.query(query),
            self.attention.key(memory),
            heads=self.attention.heads,
            per_head=options.get("per_head", False),
        )
        return updated, None if scores is None else old

    monkeypatch.setattr(LEAPBlock, "forward", forward)
    fails("leap_decoder_n1")


@pytest.mark.parametrize("case", ["ave_att", "ave_att_weak"])
def test_ave_with_the_audio_added_by_hidden_unit(monkeypatch, case):
    real = AudioGuidedAttention.forward

    def forward(self, audio, visual):
        visual = visual.flip(2)  # the positions are exchanged where the audio's are not
        attended, weights = real(self, audio, visual)
        return attended, weights.flip(2)

    monkeypatch.setattr(AudioGuidedAttention, "forward", forward)
    fails(case)


def test_dmrn_with_straight_residuals(monkeypatch):
    real = AVE.forward

    def forward(self, audio, visual):
        encoding = real(self, audio, visual)
        a, v = encoding.aux["lstm_audio"], encoding.aux["lstm_visual"]
        mixed = (self.visual_update(v) + self.audio_update(a)) / 2
        encoding.fused = (torch.tanh(v + 2 * mixed) + torch.tanh(a + mixed)) / 2
        return encoding

    monkeypatch.setattr(AVE, "forward", forward)
    fails("ave_dmrn")


@pytest.mark.parametrize(
    "case", ["ave_att", "ave_att_weak", "ave_dmrn", "avel_losses_metrics", "train_ave_full"]
)
def test_soft_margin_on_logits(monkeypatch, case):
    real = Prediction.probability.fget
    monkeypatch.setattr(avel_losses, "soft_margin", lambda p, y: _margin(p.log(), y))
    assert real is not None
    fails(case)


def _margin(x, y):
    return torch.nn.functional.multilabel_soft_margin_loss(
        x.flatten(0, -2), y.to(x.dtype).flatten(0, -2)
    )


def test_visual_labels_without_smoothing(monkeypatch):
    real = avvp_losses.han_loss
    monkeypatch.setattr(
        cases_models, "han_loss", lambda *a, **k: real(*a, **{**k, "visual_smooth": 1.0})
    )
    fails("han_loss")


def test_a_wider_clamp(monkeypatch):
    monkeypatch.setattr(losses, "CLAMP", 1e-2)
    fails("train_han")


def test_another_offset_of_the_released_target(monkeypatch):
    real = losses.released_target
    monkeypatch.setattr(losses, "released_target", lambda a, v, eps=0.01: real(a, v, eps=0.02))
    fails("avss_loss")


def test_similarity_without_the_rectifier(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "relu", lambda self: self)
    fails("avss_loss")


@pytest.mark.parametrize("case", ["avss_loss", "leap_paper_loss"])
def test_iou_over_the_wrong_union(monkeypatch, case):
    real = losses.event_iou

    def wrong(a, v, empty_pair="zero"):
        value, valid = real(a, v, empty_pair=empty_pair)
        return value * 0.5, valid

    monkeypatch.setattr(losses, "event_iou", wrong)
    monkeypatch.setattr(cases_numbers, "event_iou", wrong)
    fails(case)


def test_a_schedule_off_by_one_epoch(monkeypatch):
    real = optim.learning_rate
    wrong = lambda *a, epoch, **k: real(*a, epoch=epoch + 1, **k)  # noqa: E731
    monkeypatch.setattr(cases_numbers, "learning_rate", wrong)
    fails("lr_schedules")


@pytest.mark.parametrize("case", ["metrics_random", "metrics_llp"])
def test_an_exclusive_overlap_threshold(monkeypatch, case):
    def exclusive(p, t):
        counts = real(p, t)
        half = _half_matches(p, t)
        return counts + torch.tensor([-1, 1, 1]).numpy()[:, None, None] * half

    real = metrics.event_counts
    metrics._count_table.cache_clear()
    monkeypatch.setattr(metrics, "event_counts", exclusive)
    try:
        fails(case)
    finally:
        metrics._count_table.cache_clear()


def _half_matches(p, t):
    """Pairs of runs that overlap by exactly one half."""
    start_p, start_t = metrics._run_starts(p), metrics._run_starts(t)
    length_p, length_t = metrics._run_lengths(p), metrics._run_lengths(t)
    total = 0
    for s in range(p.shape[1]):
        both = p[:, s] & t[:, s]
        last = both if s == p.shape[1] - 1 else both & ~(p[:, s + 1] & t[:, s + 1])
        shared = s + 1 - metrics.np.maximum(start_p[:, s], start_t[:, s])
        total = total + (last & (2 * shared == length_p[:, s] + length_t[:, s] - shared))
    return total


def test_clips_without_events_that_score_zero(monkeypatch):
    real = metrics._clip_mean
    monkeypatch.setattr(
        metrics, "_clip_mean", lambda f, on: metrics.np.where(on.any(axis=1), real(f, on), 0.0)
    )
    fails("metrics_random")


@pytest.mark.parametrize(
    ("change", "case"),
    [
        ({"betas": (0.9, 0.99)}, "train_ave_full"),
        ({"eps": 1e-7}, "train_ave_weak"),
        ({"betas": (0.9, 0.99)}, "train_dmrn"),
        ({"clip_norm": None}, "train_valor"),
        ({"weight_decay": 0.0}, "train_valor"),
        ({"name": "adam"}, "train_valor"),
    ],
)
def test_another_optimiser(monkeypatch, change, case):
    real = cases_training.OptimConfig
    monkeypatch.setattr(
        cases_training, "OptimConfig", lambda **values: real(**{**values, **change})
    )
    fails(case)


def test_clipping_without_its_small_term(monkeypatch):
    def clip(parameters, limit):
        parameters = [p for p in parameters if p.grad is not None]
        norm = torch.stack([p.grad.norm() for p in parameters]).norm()
        for p in parameters:
            p.grad.mul_(min(1.0, limit / float(norm)))
        return norm

    monkeypatch.setattr(step, "clip_gradients", clip)
    fails("train_valor")
