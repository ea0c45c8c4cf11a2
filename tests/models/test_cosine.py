"""The cosine decoder: its scores, their quirks, and what it can stand behind."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avplatform.data.adapters.registry import make_task
from avplatform.models.av_model import AVModel, count_parameters
from avplatform.models.config import AVModelConfig
from avplatform.models.contracts import Encoding, FeatureSpec
from avplatform.models.decoders.cosine import (
    CosineConfig,
    CosineDecoder,
    cosines,
    product_scores,
)
from avplatform.models.encoders.identity import IdentityConfig
from avplatform.models.encoders.temporal import TemporalConfig
from avplatform.models.errors import UsageError
from avplatform.tasks.agreement import agreement
from avplatform.tasks.ovavel import OVAVELConfig
from avplatform.tasks.ovavel.stacking import Stacking
from tests.models.cells import cell, inputs, random_batch


def decoder(**options):
    return CosineDecoder(config=CosineConfig(**options), width=6)


def encoded(clips=2, segments=10, width=6):
    rng = torch.Generator().manual_seed(2)
    return Encoding(*(torch.randn(clips, segments, width, generator=rng) for _ in range(2)))


TEXTS = torch.randn(9, 6, generator=torch.Generator().manual_seed(5))


def test_cosines_are_those_of_torch_and_a_vector_of_zeros_has_none():
    x = encoded().audio
    x[0, 0] = 0
    found = cosines(x, TEXTS)
    expected = F.cosine_similarity(x[:, :, None], TEXTS, dim=-1)
    torch.testing.assert_close(found, expected)
    assert not found[0, 0].any()
    assert cosines(x.bfloat16(), TEXTS.bfloat16()).dtype == torch.float32


def test_scores_lie_between_zero_and_one_whatever_the_number_of_texts():
    both = encoded().audio
    parse = decoder()(Encoding(both, both), TEXTS)
    scores = parse.segment.av.values
    assert scores.shape == (2, 10, 9) and parse.video.av.values.shape == (2, 9)
    torch.testing.assert_close(scores.amax(dim=-1), torch.ones(2, 10))
    torch.testing.assert_close(scores.amin(dim=-1), torch.zeros(2, 10))
    assert decoder()(encoded(1, 1), TEXTS[:1]).segment.av.values.tolist() == [[[0.0]]]


def test_two_negative_cosines_count_as_nothing_by_default_and_win_as_released():
    audio, visual = torch.tensor([[[0.1, -0.9]]]), torch.tensor([[[0.2, -0.8]]])
    assert product_scores(audio, visual).argmax() == 0
    assert product_scores(audio, visual, rectify="product").argmax() == 1


@pytest.mark.parametrize("rectify", ["each", "product"])
@pytest.mark.parametrize("decision", ["argmax", "agreement"])
def test_where_all_scores_are_equal_nothing_is_found_or_as_released_the_first_class(
    decision, rectify
):
    encoding = encoded()
    encoding.audio[:, 3] = encoding.visual[0, 3] = 0  # no sound; in the first clip no picture
    texts = torch.randn(68, 6, generator=torch.Generator().manual_seed(5))
    parse = decoder(rectify=rectify)(encoding, texts)
    assert not parse.segment.av.values[:, 3].any()
    for equal_scores, expected in (("background", 67), ("first", 0)):
        config = OVAVELConfig(decision=decision, equal_scores=equal_scores)
        task = make_task("ovavel", config)
        found = task.decide(parse)
        assert found["segment"][0, 3] == expected
        one = 67 if decision == "agreement" else expected  # the picture alone names a class
        assert found["segment"][1, 3] == one
        evidence = task.evidence(parse, found)
        assert torch.equal(evidence["event"] >= 0.5, found["segment"] != 67)
        if decision == "argmax":  # what calibrated stacking compares decides the same
            compared = {name: values.numpy() for name, values in evidence.items()}
            assert np.array_equal(Stacking(0.0, 67).labels(compared), found["segment"].numpy())
            assert (found["unseen_only"][0, 3] == 67) == (expected == 67)


@pytest.mark.parametrize("rectify", ["each", "product"])
def test_products_that_are_not_positive_have_no_gradient_and_no_nan(rectify):
    audio = torch.tensor([[[0.0, -0.5, 0.5, 0.7]]], requires_grad=True)
    visual = torch.tensor([[[0.3, 0.5, 0.5, 0.2]]], requires_grad=True)
    F.cross_entropy(product_scores(audio, visual, rectify=rectify)[0], torch.tensor([2])).backward()
    for x in (audio, visual):
        assert x.grad.isfinite().all() and not x.grad[..., :2].any() and x.grad[..., 2:].all()


def test_the_least_loss_of_the_published_logits_and_with_a_factor():
    right = torch.tensor([[[1.0, 0.0, 0.0]]])
    least = {}
    for temperature in ("none", "fixed", "learned"):
        made = decoder(temperature=temperature, scale=20.0)
        scores = made._factor * product_scores(right, right)
        least[temperature] = float(F.cross_entropy(scores[0].detach(), torch.tensor([0])))
    assert least["none"] == pytest.approx(math.log(math.e + 2) - 1, abs=1e-6)
    assert least["fixed"] == pytest.approx(least["learned"]) and least["fixed"] < 1e-7
    counts = {t: count_parameters(decoder(temperature=t)) for t in least}
    assert counts == {"none": 0, "fixed": 0, "learned": 1}


def test_streams_apart_have_logits_of_their_own_cosines():
    made = decoder(combine="none", temperature="learned", scale=5.0, score_bias=-2.0)
    encoding = encoded()
    parse = made(encoding, TEXTS)
    assert parse.segment.av is None and parse.attention.shape == (2, 2, 9, 10)
    for name in ("audio", "visual"):
        expected = 5 * cosines(getattr(encoding, name), TEXTS) - 2
        found = getattr(parse.segment, name)
        torch.testing.assert_close(found.values, expected)
        whole = getattr(parse.video, name).values
        assert (whole >= found.probability.amin(1) - 1e-6).all()
        assert (whole <= found.probability.amax(1) + 1e-6).all()


def test_texts_of_another_width_are_refused_with_both_widths():
    spec = dict(
        task="avel",
        classes=["a", "b"],
        features=FeatureSpec(audio_dim=4, visual_dim=4),
        label_dim=5,
    )
    config = AVModelConfig(encoder=IdentityConfig(), decoder=CosineConfig(), **spec)
    with pytest.raises(UsageError, match="identity gives vectors of 4 numbers.*texts have 5"):
        AVModel(config, label_embeddings=torch.ones(2, 5))
    wide = AVModelConfig(encoder=IdentityConfig(width=5), decoder=CosineConfig(), **spec)
    assert AVModel(wide, label_embeddings=torch.ones(2, 5)).encoder.width == 5


def test_a_model_without_parameters_is_saved_loaded_and_asked_for_other_texts(tmp_path):
    config = AVModelConfig(
        task="avel",
        classes=["a", "b"],
        label_dim=10,
        features=FeatureSpec(audio_dim=4, visual_dim=6),
        encoder=IdentityConfig(),
        decoder=CosineConfig(),
    )
    texts = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    model = AVModel(config, label_embeddings=texts).eval()
    assert model.num_parameters == 0 and model.dtype == torch.float32
    model.save_pretrained(tmp_path)
    loaded = AVModel.from_pretrained(tmp_path)
    audio, visual = torch.randn(1, 7, 4), torch.randn(1, 7, 6)
    found = model(audio, visual).parse.segment
    assert torch.equal(loaded(audio, visual).parse.segment.av.values, found.av.values)
    other = loaded(audio, visual, label_embeddings=torch.randn(5, 10)).parse.segment.av.values
    assert other.shape == (1, 7, 5)
    # Side by side, each stream sees its own half of the texts: the best text is the same.
    own = cosines(audio, texts[:, :4] / texts.norm(dim=1, keepdim=True))
    order = F.cosine_similarity(F.pad(audio, (0, 6))[:, :, None], texts, dim=-1)
    torch.testing.assert_close(found.audio.values, order)
    assert own.shape == order.shape


def test_published_layers_learn_from_texts_that_are_kept():
    torch.manual_seed(0)
    config = AVModelConfig(
        task="avel",
        classes=[*"abc", "background"],
        label_dim=6,
        features=FeatureSpec(audio_dim=6, visual_dim=6),
        encoder=TemporalConfig(attention_width=4, hidden=4),
        decoder=CosineConfig(rectify="product"),
    )
    model = AVModel(config, label_embeddings=torch.randn(4, 6))
    scores = model(torch.randn(2, 10, 6), torch.randn(2, 10, 6)).parse.segment.av.logit
    F.cross_entropy(scores.flatten(0, 1), torch.arange(20) % 4).backward()
    silent = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert "label_embeddings" not in dict(model.named_parameters())
    assert {name for name in silent if not name.endswith("key.bias")} == set()


SCORES = torch.tensor([[[3, 1, 0.0], [0, 1, 2], [0, 5, 1], [1, 1, 0]]])
OTHER = torch.tensor([[[0, 1, 0.0], [0, 1, 2], [0, 5, 1], [1, 1, 0]]])


def test_streams_agree_segment_by_segment_or_on_the_first_class():
    found = agreement(SCORES, OTHER, 2)
    assert found.agree.tolist() == [[False, True, True, True]]
    assert found.label.tolist() == [[2, 2, 1, 0]]  # the first of equal scores counts
    # The first agreement is on background, so the whole clip is background.
    assert agreement(SCORES, OTHER, 2, clip_class="first").label.tolist() == [[2, 2, 2, 2]]
    # Equal scores of all classes name none.
    assert agreement(SCORES * 0, OTHER, 2).label.tolist() == [[2, 2, 2, 2]]
    # Without a text of background there is an index for it all the same.
    assert agreement(SCORES, OTHER, 3, clip_class="first").label.tolist() == [[3, 2, 2, 2]]


def test_without_an_agreement_a_clip_is_background():
    found = agreement(SCORES[:, :1], OTHER[:, :1], 2, clip_class="first")
    assert found.label.tolist() == [[2]] and found.first.tolist() == [2]


@pytest.mark.parametrize("clip_class", ["none", "first"])
def test_localization_decides_by_agreement_if_asked(clip_class):
    options = {"decision": "agreement", "clip_class": clip_class}
    built = cell("avel", "identity", "cosine", task_options=options)
    parse = built.model.eval()(*inputs("avel")).parse
    streams = [getattr(parse.segment, name).values for name in ("audio", "visual")]
    decided = built.task.decide(parse)
    assert torch.equal(decided["segment"], agreement(*streams, 28, clip_class=clip_class).label)
    evidence = built.task.evidence(parse, decided)
    assert torch.equal(evidence["event"] >= 0.5, decided["segment"] != 28)
    terms = built.task.loss(parse, built.model(*inputs("avel")).encoding, random_batch("avel", 2))
    assert set(terms) == {"segment"}


@pytest.mark.parametrize("supervision", ["full", "weak"])
@pytest.mark.parametrize(("task", "events", "taught"), [("avel", 28, 28), ("ovavel", 67, 46)])
def test_streams_agree_among_events_alone_if_background_has_no_text(
    task, events, taught, supervision
):
    options = {"decision": "agreement", "label_set": "events"}
    built = cell(task, "temporal", "cosine", supervision, task_options=options)
    assert len(built.model.config.classes) == events
    batch = random_batch(task)
    parse = built.model.eval()(batch.audio, batch.visual).parse
    streams = [getattr(parse.segment, name).values for name in ("audio", "visual")]
    assert streams[0].shape == (4, 10, events)
    decided = built.task.decide(parse)
    assert torch.equal(decided["segment"], agreement(*streams, events).label)
    assert (decided["segment"] == events).any() and (decided["segment"] < events).any()
    evidence = built.task.evidence(parse, decided)
    assert torch.equal(evidence["event"] >= 0.5, decided["segment"] != events)
    assert (evidence["label"] < events).all()
    assert built.task.probabilities(parse)["av"].shape == (4, 10, events)
    output = built.model(batch.audio, batch.visual, asked=built.task.asked())
    assert output.parse.segment.av.values.shape[-1] == taught
    (loss,) = built.task.loss(*output, batch).values()
    nothing = torch.full_like(batch.labels["segment"], events)  # background teaches nothing
    empty = dataclasses.replace(
        batch, labels=batch.labels | {"segment": nothing, "video": nothing[:, 0]}
    )
    assert loss > 0 and list(built.task.loss(*output, empty).values()) == [0]


def test_the_loss_of_events_alone_is_cross_entropy_on_the_segments_that_have_one():
    options = {"decision": "agreement", "label_set": "events"}
    built = cell("avel", "temporal", "cosine", task_options=options)
    batch = random_batch("avel")
    output, segment = built.model.eval()(batch.audio, batch.visual), batch.labels["segment"]
    some = segment != 28
    expected = F.cross_entropy(output.parse.segment.av.values[some], segment[some])
    found = built.task.loss(*output, batch)["segment"]
    torch.testing.assert_close(found, expected * some.float().mean())


@pytest.mark.parametrize(
    ("encoder", "decoder_", "options", "message"),
    [
        ("ave", "dch", {"decision": "agreement"}, "decision is 'agreement'"),
        ("ave", "cosine", {"clip_class": "first"}, "clip_class is 'first'"),
        ("ave", "leap", {"equal_scores": "first"}, "equal_scores is 'first'"),
        ("ave", "cosine", {"decision": "masked"}, "decision is 'masked'"),
        ("ave", "cosine", {"label_set": "events"}, "label_set is 'events'"),
    ],
)
def test_decisions_that_do_not_fit_are_refused(encoder, decoder_, options, message):
    with pytest.raises(UsageError, match=message):
        cell("avel", encoder, decoder_, task_options=options)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("avvp", {"combine": "product"}, "combine is 'product'; avvp keeps the streams apart"),
        ("avvp", {"rectify": "product"}, "rectify is 'product'"),
        ("avel", {"score_bias": 1.0}, "score_bias is 1.0"),
        ("avel", {"scale": 3.0}, "scale is 3.0"),
    ],
)
def test_options_that_nothing_reads_are_refused(task, options, message):
    with pytest.raises(UsageError, match=message):
        cell(task, "han", "cosine", decoder_options=options)
