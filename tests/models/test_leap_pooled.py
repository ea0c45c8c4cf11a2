"""LEAP from video labels: pooled segments as video predictions, and centred label embeddings."""

import dataclasses

import pytest
import torch

from avplatform.config.build import build_task
from avplatform.config.compose import compose
from avplatform.config.run import default_config
from avplatform.models.av_model import AVModel
from avplatform.models.contracts import Encoding
from avplatform.models.decoders.leap import LEAP
from avplatform.models.decoders.leap_config import LEAPConfig
from avplatform.models.errors import UsageError
from avplatform.tasks.avvp.losses import han_loss
from tests.models.cells import cell, inputs, random_batch

POOLED = {"form": "pooled", "score_gain": 4.0, "score_bias": -1.0}
STREAMS = ("audio", "visual")


def decoder(**options):
    """A small LEAP alone, with three labels of five dimensions, in double precision."""
    torch.manual_seed(0)
    config = LEAPConfig(**{"heads": 2, **POOLED, **options})
    model = LEAP(config=config, width=16, num_classes=3, label_dim=5).double().eval()
    return model, torch.randn(3, 5, dtype=torch.float64)


def encoding(clips=2, segments=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    streams = torch.randn(2, clips, segments, 16, generator=rng, dtype=torch.float64)
    return Encoding(audio=streams[0], visual=streams[1])


def test_videos_are_the_segments_averaged_by_the_softmax_of_their_raw_scores():
    model, labels = decoder()
    given = encoding()
    parse = model(given, labels)
    raw = {
        name: steps[-1]["scores"].mean(dim=1)  # (B, C, T), the mean over heads
        for name, steps in model.trace(model.labels(labels), given).items()
    }
    for clip in range(2):
        for label in range(3):
            weight, chance = {}, {}
            for name in STREAMS:
                weight[name] = [x.exp().item() for x in raw[name][clip, label]]
                chance[name] = [torch.sigmoid(4 * x - 1).item() for x in raw[name][clip, label]]
                of_stream = sum(
                    w * p for w, p in zip(weight[name], chance[name], strict=True)
                ) / sum(weight[name])
                video = getattr(parse.video, name)
                assert video.kind == "probability"
                assert video.values[clip, label].item() == pytest.approx(of_stream, rel=1e-9)
            every = [(w, p) for n in STREAMS for w, p in zip(weight[n], chance[n], strict=True)]
            whole = sum(w * p for w, p in every) / sum(w for w, _ in every)
            assert parse.video.av.values[clip, label].item() == pytest.approx(whole, rel=1e-9)


def test_the_weights_of_pooling_are_the_attention_that_is_shown():
    model, labels = decoder()
    parse = model(encoding(), labels)
    assert not parse.attention.requires_grad
    for index, name in enumerate(STREAMS):
        p = getattr(parse.segment, name).probability.transpose(1, 2)
        torch.testing.assert_close(
            (parse.attention[:, index] * p).sum(dim=-1), getattr(parse.video, name).values
        )


def test_the_size_of_an_encoders_output_does_not_sharpen_the_pooling():
    model, labels = decoder()
    small = encoding()
    large = Encoding(audio=30 * small.audio, visual=30 * small.visual)
    torch.testing.assert_close(
        model(small, labels).attention, model(large, labels).attention, rtol=1e-3, atol=1e-4
    )


def test_every_parameter_of_the_weak_default_learns():
    found = cell("avvp", "han", "leap", "weak")
    batch = random_batch("avvp")
    output = found.model(batch.audio, batch.visual, batch.motion)
    sum(found.task.loss(output.parse, output.encoding, batch).values()).backward()
    still = [
        name
        for name, p in found.model.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    # A softmax over keys does not change with the bias of all keys; nothing else may stand still.
    assert all(name.endswith("key.bias") for name in still), still
    assert not any("_video" in name for name, _ in found.model.named_parameters())


@pytest.mark.parametrize(("clips", "segments", "positive"), [(1, 1, True), (1, 10, False)])
def test_one_segment_and_no_class_give_a_finite_loss(clips, segments, positive):
    found = cell("avvp", "han", "leap", "weak")
    audio, visual, motion = inputs("avvp", clips, segments)
    output = found.model(audio, visual, motion)
    weak = torch.zeros(clips, 25)
    weak[:, 3] = float(positive)
    batch = random_batch("avvp", clips, segments)
    batch.labels["weak"] = weak
    loss = sum(found.task.loss(output.parse, output.encoding, batch).values())
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in found.model.parameters())
    if segments == 1:  # nothing to pool in one stream
        for name in STREAMS:
            alone = getattr(output.parse.segment, name).probability[:, 0]
            torch.testing.assert_close(getattr(output.parse.video, name).values, alone)


def test_seconds_are_learnt_from_video_labels_alone():
    """Two classes, each in two of six segments; a third never occurs. No label has a time."""
    torch.manual_seed(0)
    config = LEAPConfig(heads=2, **POOLED)
    model = LEAP(config=config, width=16, num_classes=3, label_dim=5)
    labels, looks = torch.randn(3, 5), torch.randn(3, 16)
    rng = torch.Generator().manual_seed(0)
    truth = torch.zeros(32, 6, 3)
    for clip in range(32):
        onset = int(torch.randint(5, (1,), generator=rng))
        truth[clip, onset : onset + 2, clip % 2] = 1
    given = truth @ looks + 0.1 * torch.randn(32, 6, 16, generator=rng)
    stream = Encoding(audio=given, visual=given)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        terms = han_loss(model(stream, labels), truth.amax(dim=1), visual_smooth=1.0)
        sum(terms.values()).backward()
        optimizer.step()
    found = model(stream, labels).segment.audio.probability >= 0.5
    both = (found & truth.bool()).sum()
    assert 2 * both / (found.sum() + truth.sum()) > 0.9


def test_centred_labels_lose_the_mean_of_the_training_classes_and_have_unit_variance():
    model, labels = decoder(centre_labels=True)
    model.read_labels(labels)
    plain, _ = decoder()
    plain.load_state_dict(model.state_dict(), strict=False)
    given = encoding()
    others = torch.randn(2, 5, dtype=torch.float64)
    for texts in (labels, others):
        apart = texts - labels.mean(dim=0)
        apart = apart / apart.square().sum(dim=1, keepdim=True).sqrt() * 5**0.5
        torch.testing.assert_close(
            model(given, texts).segment.audio.values, plain(given, apart).segment.audio.values
        )
    alone = model(given, labels[1:2]).segment.audio.values
    torch.testing.assert_close(alone, model(given, labels).segment.audio.values[:, :, 1:2])


def test_a_single_class_can_be_centred():
    model, labels = decoder(centre_labels=True)
    model.read_labels(labels[:1])
    assert model(encoding(), labels[:1]).segment.audio.values.isfinite().all()


def test_the_mean_is_saved_with_the_model(tmp_path):
    model = cell("avvp", "han", "leap", "weak").model.eval()
    assert torch.equal(model.decoder.label_mean, model.label_embeddings.mean(dim=0))
    model.save_pretrained(tmp_path)
    again = AVModel.from_pretrained(tmp_path).eval()
    features = inputs("avvp")
    others = torch.randn(2, model.config.label_dim)
    for texts in (None, others):
        was, is_ = (m(*features, label_embeddings=texts).parse for m in (model, again))
        torch.testing.assert_close(was.segment.audio.values, is_.segment.audio.values)


def test_weak_cells_pool_and_all_others_stay_as_published():
    published = LEAPConfig()
    for encoder in ("han", "mmpyr"):
        weak = default_config("avvp", encoder, "leap", "weak").decoder_config
        assert (weak.form, weak.centre_labels) == ("pooled", True)
        assert default_config("avvp", encoder, "leap", "pseudo").decoder_config == published
    assert compose(("here", {"preset": "han-leap-avvp-official"})).decoder_config == published


def test_pooling_is_refused_where_it_cannot_work():
    with pytest.raises(UsageError, match="no video classifier"):
        LEAPConfig(form="pooled", shared_video_classifier=True)
    found = cell("avel", "ave", "leap", "weak")
    options = dataclasses.replace(found.config.decoder_config, form="pooled")
    with pytest.raises(UsageError, match=r"decoder_config\.form is 'pooled'.*released or paper"):
        found.task.check("ave", "leap", found.config.encoder_config, options)


@pytest.mark.parametrize("option", [{"blocks": 3}, {"hidden": 8}, {"dropout": 0.5}])
def test_options_of_the_projection_are_refused_without_one(option):
    config = default_config("avvp", "han", "leap", "weak")
    options = dataclasses.replace(config.decoder_config, **option)
    with pytest.raises(UsageError, match=next(iter(option))):
        build_task(config).check("han", "leap", config.encoder_config, options)


def test_the_released_form_keeps_the_repeated_labels():
    found = cell("avvp", "han", "leap", "weak", decoder_options={"form": "released"})
    batch = random_batch("avvp")
    output = found.model(batch.audio, batch.visual, batch.motion)
    terms = found.task.loss(output.parse, output.encoding, batch)
    assert set(terms) == {"audio", "visual", "global", "segment_audio", "segment_visual"}
    pooled = cell("avvp", "han", "leap", "weak")
    output = pooled.model(batch.audio, batch.visual, batch.motion)
    assert set(pooled.task.loss(output.parse, output.encoding, batch)) == {
        "audio",
        "visual",
        "global",
    }
