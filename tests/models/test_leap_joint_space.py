"""LEAP with texts and features of one joint model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from avplatform.models.contracts import Encoding
from avplatform.models.decoders.leap import LEAP
from avplatform.models.decoders.leap_config import LEAPConfig
from avplatform.models.errors import UsageError
from tests.models.cells import cell

WIDTH, CLASSES = 32, 6


def decoder(**options) -> LEAP:
    torch.manual_seed(0)
    config = LEAPConfig(joint_space=True, combine="mean", **options)
    return LEAP(config=config, width=WIDTH, label_dim=WIDTH).eval()


def clip() -> tuple[Encoding, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    audio, visual = torch.randn(2, 3, 10, WIDTH, generator=generator)
    return Encoding(audio=audio, visual=visual), torch.randn(CLASSES, WIDTH, generator=generator)


@pytest.mark.parametrize("form", ["released", "pooled"])
@pytest.mark.parametrize("blocks", [1, 3])
def test_scores_begin_as_products_of_normalised_texts_and_segments(form, blocks):
    encoding, labels = clip()
    segments = encoding.audio
    if form == "pooled":
        segments = F.layer_norm(segments, (WIDTH,))
    model = decoder(form=form, blocks=blocks)
    expected = segments @ F.layer_norm(labels, (WIDTH,)).T / (8 * WIDTH) ** 0.5
    if form == "released":  # the updated label is scored, which is the label itself at first
        expected = segments @ labels.T / (8 * WIDTH) ** 0.5
    torch.testing.assert_close(model(encoding, labels).segment.audio.values, expected)


def test_a_narrower_decoder_turns_texts_and_segments_alike():
    encoding, labels = clip()
    model = decoder(width=8)
    turn = model.labels.weight
    torch.testing.assert_close(turn @ turn.T, torch.eye(8))
    for name in ("audio", "visual"):
        torch.testing.assert_close(getattr(model, f"adapt_{name}").weight, turn)
    expected = (encoding.visual @ turn.T) @ (labels @ turn.T).T / (8 * 8) ** 0.5
    torch.testing.assert_close(model(encoding, labels).segment.visual.values, expected)


def test_clips_are_segments_weighted_by_their_scores():
    encoding, labels = clip()
    parse = decoder(score_gain=2.0, score_bias=-1.0)(encoding, labels)
    scores = parse.segment.audio.values
    weights = ((scores + 1) / 2).softmax(dim=1)
    torch.testing.assert_close(parse.video.audio.values, (weights * scores).sum(dim=1))


def test_segments_share_the_score_of_their_clip():
    encoding, labels = clip()
    apart = decoder()(encoding, labels).segment.audio.values
    whole = (apart.softmax(dim=1) * apart).sum(dim=1, keepdim=True)
    shared = decoder(clip_share=0.7)(encoding, labels).segment.audio.values
    torch.testing.assert_close(shared, 0.3 * apart + 0.7 * whole)
    with pytest.raises(UsageError, match=r"clip_share is 1\.5"):
        LEAPConfig(clip_share=1.5)


def test_every_parameter_learns():
    encoding, labels = clip()
    model = decoder(width=8, score_gain=2.0, score_bias=-1.0, clip_share=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # the blocks add nothing in the first step
        optimizer.zero_grad()
        model(encoding, labels).video.av.values.square().sum().backward()
        optimizer.step()
    still = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert not {name for name in still if "feedforward" not in name}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"form": "paper", "heads": 1}, "'paper' normalises what its blocks add"),
        ({"shared_video_classifier": True}, "clips are pooled from their segments"),
    ],
)
def test_what_contradicts_a_joint_space_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        cell("ovavel", "temporal", "leap", decoder_options={"joint_space": True, **options})


def test_texts_of_another_width_are_refused():
    config = LEAPConfig(joint_space=True)
    assert LEAP.texts_as_wide(config)
    assert not LEAP.texts_as_wide(LEAPConfig())
