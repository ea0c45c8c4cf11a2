"""The evidence decoder: its passes, its joint branch, and its uncertainties."""

import pytest
import torch

from avplatform.models.contracts import Encoding
from avplatform.models.decoders.cmpae import (
    Evidence,
    EvidenceConfig,
    beta_evidence,
    beta_logit,
    beta_uncertainty,
)
from avplatform.models.errors import UsageError
from tests.models.cells import cell, inputs

TWO_PASSES = {"mixture": 0.8, "stem_activation": "elu"}


def model_of(task="avvp", encoder_options=TWO_PASSES, **decoder_options):
    built = cell(
        task, "han", "cmpae", encoder_options=encoder_options, decoder_options=decoder_options
    )
    return built.model.eval()


def probability(parse, level="video", stream="audio"):
    return getattr(getattr(parse, level), stream).probability


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(("level", "stream"), [("video", "audio"), ("segment", "visual")])
def test_decisions_read_the_weighted_mean_of_both_passes(share, level, stream):
    model, data = model_of(fusion=share), inputs("avvp")
    parse = model(*data).parse
    with model.encoder.self_only():
        alone = model(*data).parse
    assert alone.decided is None
    mixed, own = (probability(p, level, stream) for p in (parse, alone))
    assert not torch.allclose(mixed, own)
    fused = probability(parse.for_decisions, level, stream)
    torch.testing.assert_close(fused, share * mixed + (1 - share) * own)


def test_the_whole_clip_and_the_losses_read_the_first_pass_alone():
    model = model_of()
    parse = model(*inputs("avvp")).parse
    assert parse.for_decisions.video.av is parse.video.av
    assert model.train()(*inputs("avvp")).parse.decided is None


def test_behind_an_encoder_of_one_pass_decisions_read_that_pass():
    model = model_of(encoder_options={})
    parse = model(*inputs("avvp")).parse
    assert parse.for_decisions is parse
    with pytest.raises(UsageError, match=r"fusion.*two passes"):
        cell("avvp", "han", "cmpae", decoder_options={"fusion": 0.5})


def test_the_joint_branch_reads_the_stem_where_it_is_of_the_width():
    torch.manual_seed(0)
    decoder = Evidence(config=EvidenceConfig(), width=4, num_classes=3).eval()
    audio, visual, other = (torch.randn(2, 5, 4) for _ in range(3))

    def whole(**aux):
        return decoder(Encoding(audio, visual, aux=aux)).video.av.probability

    encoded = whole()
    assert not torch.equal(whole(stem_audio=other, stem_visual=other), encoded)
    wide = torch.randn(2, 5, 6)
    assert torch.equal(whole(stem_audio=wide, stem_visual=wide), encoded)


def test_logit_and_uncertainty_are_those_of_a_beta_distribution():
    logits = torch.tensor([[0.0, 0.0], [3.0, -2.0], [50.0, -50.0]], dtype=torch.float64)
    evidence = beta_evidence(logits)
    torch.testing.assert_close(beta_logit(logits).sigmoid(), evidence[:, 0] / evidence.sum(dim=-1))
    unsure = beta_uncertainty(logits)
    assert unsure[0] == 0.5 and 0 < unsure[2] < unsure[1] < 0.5
    assert evidence[2].tolist() == pytest.approx([268338.2865, 1.0000037], rel=1e-6)


def test_features_against_classes_are_added_or_multiplied():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 2, 4)
    found = {}
    for form in ("add", "multiply"):
        decoder = Evidence(config=EvidenceConfig(absence=form), width=4, num_classes=3).eval()
        for layer in (decoder.audio_selector, decoder.visual_selector):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.constant_(layer.bias, 2.0)
        found[form] = decoder.absent(x)
    torch.testing.assert_close(found["add"], x + 2)
    torch.testing.assert_close(found["multiply"], 3 * x)


def test_frames_are_averaged_after_the_activation_of_the_stem():
    stem = model_of().stem
    audio, _, motion = inputs("avvp")
    frames = torch.randn(2, 20, 8)
    x = torch.nn.functional.elu(stem.visual(frames)).unflatten(1, (10, 2)).mean(dim=2)
    both = torch.cat([x, torch.nn.functional.elu(stem.motion(motion))], dim=-1)
    expected = torch.nn.functional.elu(stem.fusion(both))
    torch.testing.assert_close(stem(audio, frames, motion)[1], expected)


def test_localization_finds_the_event_of_the_clip_where_both_streams_have_it():
    built = cell("avel", "han", "cmpae", "weak", encoder_options=TWO_PASSES)
    model, task = built.model.eval(), built.task
    parse = model(*inputs("avel", clips=6, seed=3)).parse
    seen = parse.for_decisions
    whole = probability(seen) * probability(seen, stream="visual")
    found = task.decide(parse)["segment"]
    for clip, best in enumerate(whole.argmax(dim=-1).tolist()):
        streams = [probability(seen, "segment", s)[clip, :, best] for s in ("audio", "visual")]
        on = (streams[0] >= 0.5) & (streams[1] >= 0.5) & (whole[clip, best] >= 0.5)
        assert torch.equal(found[clip], torch.where(on, best, task.background))
