"""A wrong detail of MA, JoMoLD or CVCMS in the product turns its golden cases red."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import pytest
import torch

from avplatform.models.decoders import cvcms
from avplatform.models.encoders.han import HAN
from avplatform.tasks.avvp import contrast, denoise, mixing
from avplatform.tasks.avvp.config import AVVPConfig
from avplatform.tasks.avvp.targets import Kept
from tests.parity import cases_strategies as cases
from tests.parity.test_mutations import fails


def with_options(monkeypatch, **options):
    """Train with other options of the task than the case's."""
    real = AVVPConfig
    monkeypatch.setattr(cases, "AVVPConfig", lambda **given: real(**{**given, **options}))


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("train_ma", {"contrast": "jomold"}),
        ("train_ma", {"contrast_visual": "encoded"}),
        ("train_ma", {"global_target": "weak"}),
        ("train_ma", {"smooth_dropped": True}),
        ("train_jomold", {"denoise": "full"}),
        ("train_jomold", {"denoise_warm_up": "off"}),
        ("train_jomold", {"denoise_rounding": "carry"}),
        ("train_cvcms", {"global_target": "weak"}),
        ("train_cvcms", {"smooth_dropped": False}),
        ("train_cvcms", {"contrast_after": 1}),
    ],
)
def test_another_option(monkeypatch, case, options):
    with_options(monkeypatch, **options)
    fails(case)


def test_labels_whose_number_is_rounded_and_not_truncated(monkeypatch):
    def rounded(ratios, labels, carried=None):
        amounts = ratios.nan_to_num(nan=0.0) * labels.sum(dim=1)
        return amounts.round().long(), amounts * 0

    monkeypatch.setattr(cases, "drop_counts", rounded)
    fails("jomold_denoise")


def test_equal_losses_that_rank_in_the_opposite_order(monkeypatch):
    real = denoise._ranks

    def backwards(losses, labels):
        return real(losses.flip(1), labels.flip(1)).flip(1)

    monkeypatch.setattr(denoise, "_ranks", backwards)
    fails("jomold_denoise")


def test_ranking_that_does_not_leave_cross_attention_out(monkeypatch):
    monkeypatch.setattr(HAN, "self_only", lambda encoder: nullcontext())
    fails("train_jomold")


def test_smoothing_that_keeps_what_was_dropped(monkeypatch):
    monkeypatch.setattr(Kept, "target", lambda self, stream, weak, s: s * weak + (1 - s) / 2)
    fails("train_ma")


def test_class_tokens_that_do_not_attend(monkeypatch):
    monkeypatch.setattr(cvcms.HANLayer, "forward", lambda self, streams, **told: streams)
    fails("cvcms_net")


def test_pairs_whose_visual_is_the_clips_own(monkeypatch):
    real = mixing.mixed
    monkeypatch.setattr(
        cases, "mixed", lambda batch, partners: real(batch, torch.arange(len(batch)))
    )
    fails("cvcms_net")


def test_vectors_that_weigh_all_segments_alike(monkeypatch):
    real = contrast.cross_video_logits

    def plain(encoding, parse, heard, seen, **told):
        same = {"segment_attention": torch.ones_like(parse.aux["segment_attention"])}
        return real(encoding, dataclasses.replace(parse, aux=same), heard, seen, **told)

    monkeypatch.setattr(cases, "cross_video_logits", plain)
    fails("cvcms_net")
