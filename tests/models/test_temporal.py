"""The encoders temporal and identity, and features as they are."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from avplatform.models.av_model import count_parameters
from avplatform.models.contracts import FeatureSpec
from avplatform.models.encoders.identity import Identity, IdentityConfig
from avplatform.models.encoders.temporal import Temporal, TemporalConfig, power_normed, window_mask
from avplatform.models.errors import DataError, UsageError
from avplatform.models.stem import FeatureStem

SMALL = dict(attention_width=8, hidden=6)


def temporal(width=10, **options):
    torch.manual_seed(0)
    config = TemporalConfig(**{**SMALL, **options})
    encoder = Temporal(config=config, audio_dim=width, visual_dim=width).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


def streams(clips=2, segments=10, width=10):
    rng = torch.Generator().manual_seed(1)
    return tuple(torch.randn(clips, segments, width, generator=rng) for _ in range(2))


def test_the_published_layers_have_the_parameters_that_act_and_no_others():
    with torch.device("meta"):
        encoder = Temporal(config=TemporalConfig(), audio_dim=1024, visual_dim=1024)
    assert count_parameters(encoder) == 4_209_152
    names = {name.split(".")[2] for name, _ in encoder.named_parameters()}
    assert not names & {"global_share", "adjacency_scale", "adjacency_shift"}
    assert {"global_share"} == {
        n.split(".")[2] for n, _ in temporal(window=3).named_parameters()
    } - names


@pytest.mark.parametrize("official", [True, False])
def test_all_layers_start_as_copies_of_one_as_released(official):
    config = TemporalConfig(**SMALL, layers=2, official_init=official)
    encoder = Temporal(config=config, audio_dim=10, visual_dim=10)
    first, *others = (*encoder.audio_layers, *encoder.visual_layers)
    assert [torch.equal(first.query.weight, x.query.weight) for x in others] == [official] * 3


@pytest.mark.parametrize(
    ("options", "knows"),
    [({}, False), ({"heads": 4}, False), ({"adjacency": True}, True), ({"window": 3}, True)],
)
def test_the_order_of_segments_is_known_by_adjacency_and_window_only(options, knows):
    encoder, (audio, visual) = temporal(**options), streams()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    found = encoder(audio, visual).audio[:, order]
    turned = encoder(audio[:, order], visual[:, order]).audio
    assert torch.allclose(turned, found, atol=1e-5) is not knows


def test_streams_do_not_meet():
    encoder, (audio, visual) = temporal(), streams()
    assert torch.equal(encoder(audio, visual).audio, encoder(audio, 2 * visual).audio)


def test_a_window_replaces_what_lies_beyond_the_clip_by_its_ends():
    seen = [row.nonzero().flatten().tolist() for row in window_mask(6, 4)]
    assert seen == [[0, 1], [0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5]]
    assert window_mask(1, 5).tolist() == [[True]]
    encoder, (audio, visual) = temporal(window=3), streams()
    with torch.no_grad():
        encoder.audio_layers[0].global_share.fill_(-1e4)  # nothing but the window
    weights = encoder(audio, visual).aux["audio_attention"]
    assert torch.equal(weights[0, 0] > 0, window_mask(10, 3))


def test_a_linear_layer_sees_no_other_segment():
    encoder, (audio, visual) = (
        temporal(
            form="linear", **{k: v for k, v in TemporalConfig().__dict__.items() if k in SMALL}
        ),
        streams(),
    )
    alone = encoder(audio[:, :1], visual[:, :1])
    torch.testing.assert_close(alone.audio, encoder(audio, visual).audio[:, :1])
    assert alone.aux == {}


def test_a_power_norm_has_norm_one_over_time_and_no_gradient_at_zero():
    x = torch.tensor([[[4.0, 0.0], [-9.0, 0.0]]], requires_grad=True)
    found = power_normed(x)
    torch.testing.assert_close(found[0, :, 0], torch.tensor([2.0, -3.0]) / 13**0.5)
    found.sum().backward()
    assert x.grad.isfinite().all() and x.grad[..., 1].eq(0).all()


EVERY = dict(layers=2, heads=4, adjacency=True, window=4, power_norm=True)


@pytest.mark.parametrize("options", [{}, EVERY, {"form": "linear", "layers": 3}])
@pytest.mark.parametrize("segments", [1, 7, 10])
def test_clips_of_any_length_teach_every_parameter_that_can_learn(options, segments):
    encoder = temporal(**options)
    found = encoder(*streams(1, segments))
    (found.audio.square().sum() + found.visual.pow(3).sum()).backward()
    silent = {n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()}
    if segments == 1:  # one segment attends to itself whatever the scores
        allowed = ("query", "key", "adjacency", "global_share")
        assert all(any(part in name for part in allowed) for name in silent)
        return
    # A key's bias adds the same to all scores, but rounding may leave something.
    assert {name for name in silent if not name.endswith("key.bias")} == set()


def test_norms_of_the_streams_are_set_and_zeros_stay():
    audio, visual = streams()
    audio[0, 0] = 0
    encoder = Identity(config=IdentityConfig(input_scale=(20, 1)), audio_dim=10, visual_dim=10)
    found = encoder(audio, visual)
    assert count_parameters(encoder) == 0 and encoder.width == 10
    torch.testing.assert_close(found.audio.norm(dim=-1)[0, 1:], torch.full((9,), 20.0))
    torch.testing.assert_close(found.visual.norm(dim=-1), torch.ones(2, 10))
    assert not found.audio[0, 0].any()
    plain = Identity(config=IdentityConfig(), audio_dim=10, visual_dim=10)(audio, visual)
    assert plain.audio is audio and plain.visual is visual


def test_features_of_one_space_pass_as_they_are_and_those_of_two_stand_side_by_side():
    audio, visual = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    shared = FeatureStem(features=FeatureSpec(audio_dim=4, visual_dim=4))
    assert all(
        torch.equal(a, b) for a, b in zip(shared(audio, visual), (audio, visual), strict=True)
    )
    apart = FeatureStem(features=FeatureSpec(audio_dim=4, visual_dim=4), space="apart")
    heard, seen = apart(audio, visual)
    assert apart.width == 8
    assert torch.equal(heard, F.pad(audio, (0, 4))) and torch.equal(seen, F.pad(visual, (4, 0)))
    with pytest.raises(UsageError, match="audio vectors have 4 numbers and the visual ones 9"):
        FeatureStem(features=FeatureSpec(audio_dim=4, visual_dim=9), space="shared")
    with pytest.raises(DataError, match="audio has shape"):
        shared(audio[..., :3], visual)


def test_frames_positions_and_motion_become_one_vector_a_segment():
    spec = FeatureSpec(audio_dim=4, visual_dim=3, motion_dim=2)
    stem = FeatureStem(features=spec)
    audio, visual, motion = torch.randn(1, 2, 4), torch.randn(1, 6, 3), torch.randn(1, 2, 2)
    heard, seen = stem(audio, visual, motion)
    assert stem.width == heard.shape[-1] == seen.shape[-1] == 9
    torch.testing.assert_close(seen[0, 0, 4:7], visual[0, :3].mean(dim=0))
    assert torch.equal(seen[..., 7:], motion)
    maps = FeatureStem(features=FeatureSpec(audio_dim=3, visual_dim=3, map_size=(2, 2)))
    grid = torch.randn(1, 2, 2, 2, 3)
    torch.testing.assert_close(maps(torch.randn(1, 2, 3), grid)[1], grid.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads is 3; it must divide attention_width"),
        ({"input_scale": (20.0, 0.0)}, "input_scale is .* must be positive"),
        ({"window": 0}, "window is 0"),
        ({"space": "both"}, "space is 'both'"),
    ],
)
def test_options_that_cannot_be_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        TemporalConfig(**options)


def test_options_that_nothing_reads_are_known():
    linear = TemporalConfig(form="linear", window=3, width=8)
    unread = {name for name, read, _ in Temporal.unread(linear) if not read}
    assert {"window", "heads", "space"} <= unread
    assert all(
        read
        for _, read, _ in Temporal.unread(dataclasses.replace(linear, form="attention", width=None))
    )
