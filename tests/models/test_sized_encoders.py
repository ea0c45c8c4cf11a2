"""MGN's and DHHN's encoders: clips of other lengths, tokens, noise and levels."""

from __future__ import annotations

import pytest
import torch

from avplatform.models.av_model import AVModel
from avplatform.models.contracts import Encoding
from avplatform.models.decoders import DECODERS
from avplatform.models.decoders.group import GroupingDecoderConfig
from avplatform.models.encoders.dhhn import DHHNConfig
from avplatform.models.errors import DataError, UsageError
from avplatform.models.layers.grouping import Block, Grouping
from avplatform.training.optim import build_optimizer
from avplatform.training.step import optimisation_step
from tests.models.cells import build, cell, inputs, random_batch


def test_a_model_that_groups_audio_by_time_reads_clips_of_its_own_length_only(tmp_path):
    built = cell("avvp", "mgn", "group", "weak", segments=7)
    built.model.eval().save_pretrained(tmp_path)
    loaded = AVModel.from_pretrained(tmp_path)
    data = inputs("avvp", segments=7)
    expected = built.model(*data).parse.video.av.values
    assert torch.equal(loaded(*data).parse.video.av.values, expected)
    with pytest.raises(DataError, match="clips have 10 segments.*of 7.*audio_segments plain"):
        loaded(*inputs("avvp", segments=10))


def test_behind_other_decoders_it_reads_clips_of_any_length():
    model = build("avvp", "mgn", "mmil")
    for segments in (1, 4, 13):
        data = inputs("avvp", segments=segments)
        assert model(*data).parse.segment.audio.values.shape == (2, segments, 25)


def test_a_row_of_plain_audio_is_a_second():
    """Without grouping the order of the segments carries over to the output."""
    model = build("avvp", "mgn", "mmil")
    audio, visual, motion = inputs("avvp")
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    found = model(audio, visual, motion).encoding.audio[:, order]
    turned = model(audio[:, order], visual[:, order], motion[:, order]).encoding.audio
    torch.testing.assert_close(turned, found, rtol=1e-4, atol=1e-5)


def test_a_decoder_is_told_whose_tokens_it_groups_by():
    assert build("avvp", "mgn", "group").config.decoder.tokens == "encoder"
    own = build("avvp", "han", "group")
    assert own.config.decoder.tokens == "own" and own.decoder.audio_tokens.shape == (25, 16)
    with pytest.raises(UsageError, match="tokens is 'encoder', but han has no class tokens"):
        cell("avvp", "han", "group", decoder_options={"tokens": "encoder"})
    with pytest.raises(UsageError, match="levels is 'mean', but han has no levels"):
        cell("avvp", "han", "mmil", decoder_options={"levels": "mean"})
    with pytest.raises(UsageError, match="heads is 3; it must divide width"):
        DECODERS["group"](config=GroupingDecoderConfig(heads=3), width=16, num_classes=2)


def test_a_number_of_tokens_belongs_to_no_class_and_goes_to_no_decoder():
    built = cell("avvp", "mgn", "leap", encoder_options={"tokens": 5})
    assert built.model.encoder.audio_tokens.shape == (5, 16)
    batch = random_batch("avvp")
    optimizer = build_optimizer(built.model.train(), built.config.optim)
    for _ in range(3):
        optimisation_step(built.model, built.task, batch, optimizer, lr=1e-2)
    tokens = built.model.encoder.audio_tokens.detach()
    assert tokens.all()
    torch.testing.assert_close(tokens, tokens[:1].expand_as(tokens))  # they stay alike
    encoding = built.model.eval()(*inputs("avvp")).encoding
    assert not any("tokens" in name for name in encoding.aux)
    own = {"encoder_options": {"tokens": 5}, "decoder_options": {"tokens": "own"}}
    assert cell("avvp", "mgn", "group", **own).model.decoder.audio_tokens.shape == (25, 16)
    with pytest.raises(UsageError, match="tokens is 'encoder', but mgn has no class tokens"):
        cell("avvp", "mgn", "group", encoder_options={"tokens": 5})


def test_noise_moves_hard_assignments_in_training_only():
    torch.manual_seed(0)
    config = GroupingDecoderConfig(heads=2, hidden=8, token_hidden=4)
    block = Grouping(config, 8, tokens=6, hard=True)
    rows, tokens = torch.randn(2, 10, 8), torch.randn(6, 8)
    still = block.eval()(rows, tokens).assignment
    assert torch.equal(still, block(rows, tokens).assignment)
    assert set(still.round().unique().tolist()) == {0.0, 1.0}
    block.train()
    first, second = (block(rows, tokens).assignment for _ in range(2))
    assert not torch.allclose(first, second)
    quiet = GroupingDecoderConfig(heads=2, hidden=8, token_hidden=4, gumbel_noise=False)
    other = Grouping(quiet, 8, tokens=6, hard=True)
    other.load_state_dict(block.state_dict())
    assert torch.equal(other.train()(rows, tokens).assignment, still)


def test_stochastic_depth_leaves_branches_out_clip_by_clip_and_keeps_the_mean():
    torch.manual_seed(0)
    block = Block(GroupingDecoderConfig(heads=2, hidden=8, stochastic_depth=0.5), 8).train()
    branch = torch.ones(4000, 3, 8)
    kept = block._sometimes(branch)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
    assert abs(float(kept.mean()) - 1) < 0.1
    assert torch.equal(block.eval()._sometimes(branch), branch)


@pytest.mark.parametrize(("factor", "largest"), [("relative", 1.0), ("assignment", 0.999)])
def test_segments_have_at_most_the_probability_of_the_clip(factor, largest):
    model = build("avvp", "han", "group", segment_factor=factor)
    parse = model(*inputs("avvp")).parse
    whole = parse.video.audio.probability[:, None]
    assert (parse.segment.audio.probability <= whole * largest + 1e-6).all()


def test_released_factors_leave_little_room_in_time():
    parse = build("avvp", "han", "group")(*inputs("avvp")).parse
    factor = parse.aux["factor_audio"].detach()
    assert float(factor.min()) >= 1.039 and float(factor.max()) <= 1.232


def test_levels_are_read_by_mmil_and_the_last_one_by_others():
    model = build("avvp", "dhhn", "mmil")
    output = model(*inputs("avvp"))
    levels = output.encoding.aux["levels_audio"]
    assert levels.shape == (2, 3, 10, 16)
    assert torch.equal(levels[:, -1], output.encoding.audio)
    single = [model.decoder.classifier(levels[:, i]).sigmoid() for i in range(3)]
    torch.testing.assert_close(output.parse.segment.audio.values, torch.stack(single).mean(dim=0))
    with pytest.raises(ValueError, match="reads? all levels"):
        model.decoder(Encoding(audio=levels[:, 0], visual=levels[:, 1]))


def test_a_single_step_of_a_single_clip_can_be_trained():
    model = build("avvp", "dhhn", "mmil").train()
    before = model.encoder.audio_scales[0].norm.running_mean.clone()
    output = model(*inputs("avvp", clips=1, segments=1))
    assert output.parse.video.av.values.isfinite().all()
    assert torch.equal(model.encoder.audio_scales[0].norm.running_mean, before)
    model(*inputs("avvp", clips=1, segments=2))
    assert not torch.equal(model.encoder.audio_scales[0].norm.running_mean, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernels": (1, 2)}, "kernels is"),
        ({"kernels": ()}, "kernels is"),
        ({"strides": (1, 2)}, "strides is"),
        ({"strides": (1, 0, 5)}, "strides is"),
        ({"kernels": (10**9 + 1,), "strides": (1,)}, "kernels is"),
    ],
)
def test_scales_that_cannot_be_built_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        DHHNConfig(**options)
