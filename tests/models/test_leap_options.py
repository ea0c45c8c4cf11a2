"""LEAP's options on event localization: streams and features to project onto, other outputs."""

import pytest
import torch

from avplatform.models.errors import UsageError
from avplatform.tasks.avel.losses import bce, class_score_loss, event_class_target
from tests.models.cells import cell, random_batch


def build(encoder, *, decoder=None, task=None, own=None, supervision="full"):
    """A small LEAP cell of event localization: its model, ready for inference, and its task."""
    options = {"encoder_options": own, "decoder_options": decoder, "task_options": task}
    found = cell("avel", encoder, "leap", supervision, **options)
    return found.model.eval(), found.task


def batch():
    return random_batch("avel", clips=3)


def run(model, adapter, data):
    output = model(data.audio, data.visual)
    return output, adapter.loss(output.parse, output.encoding, data)


def test_the_fused_stream_alone_is_the_audio_visual_prediction():
    model, adapter = build("psp", decoder={"streams": "fused"})
    output, terms = run(model, adapter, batch())
    parse = output.parse
    assert parse.segment.audio is None and parse.segment.visual is None
    assert parse.segment.av.values.shape == (3, 10, 29) and parse.attention.shape == (3, 1, 29, 10)
    assert set(terms) == {"segment", "video", "pair"}
    decoder = model.decoder
    state = raw = decoder.labels(model.label_embeddings)
    for block in decoder.fused_blocks:
        state, raw = block(state, output.encoding.fused)
    torch.testing.assert_close(
        parse.segment.av.values, (raw * decoder.score_gain[0]).transpose(1, 2)
    )


def test_all_three_streams_are_averaged():
    model, adapter = build("cmbs", decoder={"streams": "all"})
    output, _ = run(model, adapter, batch())
    parse = output.parse
    assert parse.attention.shape == (3, 3, 29, 10) and len(model.decoder.score_gain) == 3
    audio, visual, av = (getattr(parse.segment, s).values for s in ("audio", "visual", "av"))
    third = 3 * av - audio - visual
    assert not torch.allclose(third, audio) and not torch.allclose(third, visual)
    state = raw = model.decoder.labels(model.label_embeddings)
    for block in model.decoder.fused_blocks:
        state, raw = block(state, output.encoding.fused)
    torch.testing.assert_close(
        third, (raw * model.decoder.score_gain[2]).transpose(1, 2), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("encoder", "reads"), [("cmbs", "queries"), ("ave", "rectified")])
def test_labels_are_projected_onto_the_features_that_are_asked_for(encoder, reads):
    model, adapter = build(encoder, decoder={"reads": reads, "score_gain": None})
    output, _ = run(model, adapter, batch())
    encoding = output.encoding
    memory = encoding.aux["audio_query"] if reads == "queries" else encoding.audio.relu()
    state = raw = model.decoder.labels(model.label_embeddings)
    for block in model.decoder.audio_blocks:
        state, raw = block(state, memory)
    torch.testing.assert_close(output.parse.segment.audio.values, raw.transpose(1, 2))


LEAPS = [("avvp", "released", "pseudo"), ("avvp", "pooled", "weak"), ("avel", "released", "full")]


@pytest.mark.parametrize(("task", "form", "supervision"), LEAPS)
def test_gain_and_bias_by_the_text_begin_as_those_of_the_plain_decoder(task, form, supervision):
    given = {"form": form, "score_gain": 4.0, "score_bias": -2.5}
    plain, other = (
        cell(task, "han", "leap", supervision, decoder_options={**given, "score_by_text": on})
        for on in (False, True)
    )
    before, after = plain.model.state_dict(), other.model.state_dict()
    new = {"decoder.text_gain", "decoder.text_bias"}
    assert set(after) - set(before) == new and all(after[n].shape[0] == 2 for n in new)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    data = random_batch(task, clips=3)
    outputs = [found.model.eval()(data.audio, data.visual, data.motion) for found in (plain, other)]
    for name in ("audio", "visual"):
        first, second = (getattr(o.parse.segment, name).values for o in outputs)
        assert torch.equal(first, second)
    sum(other.task.loss(*outputs[1], data).values()).backward()
    assert all(dict(other.model.named_parameters())[name].grad.abs().sum() > 0 for name in new)


def test_the_text_scales_its_scores_by_a_positive_factor():
    model, _ = build("ave", decoder={"score_by_text": True, "score_bias": -1.0})
    data = batch()
    before = model(data.audio, data.visual).parse.segment.audio.values
    for parameter in (model.decoder.text_gain, model.decoder.text_bias):
        torch.nn.init.normal_(parameter)
    after = model(data.audio, data.visual).parse.segment.audio.values
    text = model.decoder.labels(model.label_embeddings)
    text = (text - text.mean(dim=1, keepdim=True)) / text.std(dim=1, correction=0, keepdim=True)
    gain, bias = text @ model.decoder.text_gain[0], text @ model.decoder.text_bias[0]
    torch.testing.assert_close(after, (before + 1) * gain.exp() - 1 + bias, rtol=1e-3, atol=1e-4)
    assert (gain < 0).any()  # an exponential, so that no text turns its scores around


@pytest.mark.parametrize("by_text", [False, True])
@pytest.mark.parametrize(("task", "form", "supervision"), LEAPS)
def test_no_score_knows_a_class_by_its_number(task, form, supervision, by_text):
    options = {"form": form, "score_by_text": by_text, "score_bias": -1.0}
    model = cell(task, "han", "leap", supervision, decoder_options=options).model.eval()
    for parameter in (model.decoder.text_gain, model.decoder.text_bias) if by_text else ():
        torch.nn.init.normal_(parameter)
    data = random_batch(task, clips=2)
    order = torch.randperm(len(model.config.classes), generator=torch.Generator().manual_seed(0))
    streams = data.audio, data.visual, data.motion
    own = model(*streams).parse
    other = model(*streams, label_embeddings=model.label_embeddings[order]).parse
    for level in ("segment", "video"):
        for name in ("audio", "visual"):
            a, b = (getattr(getattr(parse, level), name).values for parse in (own, other))
            torch.testing.assert_close(a[..., order], b, rtol=1e-4, atol=1e-5)


def test_a_loss_per_modality_is_the_sum_of_both():
    model, adapter = build("ave", task={"segment_loss": "per_modality"})
    data = batch()
    output, terms = run(model, adapter, data)
    target = torch.nn.functional.one_hot(data.labels["segment"], 29).float()
    assert set(terms) == {"segment_audio", "segment_visual", "video"}
    for name in ("audio", "visual"):
        torch.testing.assert_close(
            terms[f"segment_{name}"], bce(getattr(output.parse.segment, name), target)
        )


def test_cmbs_keeps_its_gate_and_query_losses_under_leap():
    model, adapter = build("cmbs")
    data = batch()
    output, terms = run(model, adapter, data)
    gate, event = output.encoding.aux["av_gate"], (data.labels["segment"] != 28).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(gate, event)
    torch.testing.assert_close(terms["gate"], expected)
    scores = output.parse.aux["class_scores"]
    assert scores.shape == (3, 29)
    expected = torch.nn.functional.cross_entropy(
        scores, event_class_target(data.labels["segment"], 28)
    )
    torch.testing.assert_close(terms["class_scores"], expected)
    torch.testing.assert_close(
        class_score_loss(scores, data.labels["segment"], background=28), expected
    )
    _, without = run(model, build("cmbs", task={"auxiliary_weight": 0.0})[1], data)
    assert set(terms) - set(without) == {"gate", "class_scores"}


def test_query_classes_are_the_mean_of_the_four_largest_in_time():
    model, adapter = build("cmbs")
    output, _ = run(model, adapter, batch())
    classes, aux = model.decoder.query_classes, output.encoding.aux
    both = [
        getattr(classes, s)(aux[f"{s}_query"]).sort(dim=1).values[:, -4:].mean(dim=1)
        for s in ("audio", "visual")
    ]
    torch.testing.assert_close(output.parse.aux["class_scores"], (both[0] + both[1]) / 2)


def test_weak_cmbs_has_no_auxiliary_losses():
    model, adapter = build("cmbs", supervision="weak")
    assert set(run(model, adapter, batch())[1]) == {"video", "segment"}


def test_a_relevance_map_decides_where_an_event_is():
    options = {"decoder": {"relevance": "linear"}, "task": {"label_set": "events"}}
    model, adapter = build("psp", **options)
    data = batch()
    output, terms = run(model, adapter, data)
    logit = model.decoder.relevance(output.encoding.fused).squeeze(-1)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logit, (data.labels["segment"] != 28).float()
    )
    torch.testing.assert_close(terms["relevance"], expected)
    with torch.no_grad():
        model.decoder.relevance.bias.fill_(100.0)
        everywhere = adapter.decide(model(data.audio, data.visual).parse)["segment"]
        model.decoder.relevance.bias.fill_(-100.0)
        nowhere = adapter.decide(model(data.audio, data.visual).parse)["segment"]
    assert (everywhere != 28).all() and (nowhere == 28).all()


def test_a_map_can_be_reduced_by_audio_guided_attention():
    plain, adapter = build("han")
    attending, _ = build("han", own={"map_reduction": "attention"})
    assert not hasattr(plain.stem, "map_attention")
    data = batch()
    stem = attending.stem
    vectors = stem.map_attention(data.audio, data.visual.flatten(2, 3))[0]
    torch.testing.assert_close(stem(data.audio, data.visual)[1], stem.visual(vectors))
    mean = plain.stem(data.audio, data.visual)[1]
    torch.testing.assert_close(mean, plain.stem.visual(data.visual.mean(dim=(2, 3))))


@pytest.mark.parametrize(
    ("encoder", "decoder", "task", "message"),
    [
        ("ave", {"streams": "fused"}, {}, "ave has no fused stream"),
        ("han", {"streams": "all"}, {}, "han has no fused stream"),
        ("psp", {"streams": "fused"}, {"segment_loss": "per_modality"}, "reads the audio and the"),
        ("ave", {"reads": "queries"}, {}, "reads needs gated queries, which ave does not give"),
        (
            "psp",
            {"classify_queries": True},
            {},
            "classify_queries needs gated queries, which psp does not give",
        ),
        ("ave", {"relevance": "linear"}, {}, "label_set 'events'"),
        ("ave", {"streams": "two"}, {}, "choose from both, fused, all"),
    ],
)
def test_options_that_contradict_each_other_are_refused(encoder, decoder, task, message):
    with pytest.raises(UsageError, match=message):
        build(encoder, decoder=decoder, task=task)
