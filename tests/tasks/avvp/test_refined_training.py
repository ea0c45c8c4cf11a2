"""Labels by stream in the losses, contrasts, mixed pairs, and what is refused around them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from avplatform.config.compose import compose, parse
from avplatform.models.contracts import CLASS_AUX
from avplatform.models.decoders import DECODERS
from avplatform.models.encoders import ENCODERS
from avplatform.models.errors import UsageError
from avplatform.tasks.avvp.contrast import jomold_contrast, ma_contrast
from avplatform.tasks.avvp.mixing import draw_partners, mixed, unmixed
from avplatform.tasks.avvp.targets import Kept
from avplatform.tasks.batch import Moment, Processes, TrainingClips
from tests.models.cells import cell, random_batch

WEAK = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
KEPT = Kept(audio=torch.tensor([[0, 1, 0, 1]]), visual=torch.tensor([[1, 0, 0, 1]]))


def terms(options, batch, supervision="weak", decoder="mmil", prepare=False):
    built = cell("avvp", "han", decoder, supervision, task_options=options)
    model = built.model.eval()
    if prepare:
        batch = built.task.prepare(model, batch, Processes())
    output = model(batch.audio, batch.visual, batch.motion)
    return built.task.loss(output.parse, output.encoding, batch)


def refined(batch, *, keep_audio=1.0, keep_visual=1.0):
    weak = batch.labels["weak"].float()
    masks = {"keep_audio": weak * keep_audio, "keep_visual": weak * keep_visual}
    return dataclasses.replace(batch, labels=batch.labels | masks)


def test_a_dropped_label_is_exactly_0_unless_it_is_smoothed_too():
    assert KEPT.target("audio", WEAK, 1.0).tolist() == [[0, 1, 0, 0]]
    assert KEPT.target("visual", WEAK, 0.9)[0].tolist() == pytest.approx([0.95, 0, 0, 0.05])
    smoothed = dataclasses.replace(KEPT, smooth_dropped=True).target("visual", WEAK, 0.9)
    assert smoothed[0].tolist() == pytest.approx([0.95, 0.05, 0.05, 0.05])


@pytest.mark.parametrize(
    ("whole", "wanted"),
    [("weak", [1, 1, 1, 0]), ("official", [0, 1, 0, 0]), ("union", [1, 1, 0, 0])],
)
def test_the_label_of_the_whole_clip_is_as_chosen(whole, wanted):
    assert dataclasses.replace(KEPT, whole=whole).global_target(WEAK).tolist() == [wanted]


@pytest.mark.parametrize("decoder", ["mmil", "leap", "dch"])
@pytest.mark.parametrize("supervision", ["weak", "pseudo"])
def test_labels_dropped_from_a_stream_change_its_terms_alone(supervision, decoder):
    batch = random_batch("avvp", clips=3)
    before = terms({}, refined(batch), supervision, decoder)
    after = terms({}, refined(batch, keep_visual=0.0), supervision, decoder)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith("visual")} and changed


def test_a_weight_counts_for_all_terms_of_its_stream():
    batch = random_batch("avvp", clips=3)
    plain, heavy = (terms({"audio_weight": w}, batch, "pseudo") for w in (1.0, 2.0))
    ratios = {name: float((heavy[name] / plain[name]).detach()) for name in plain}
    assert ratios == pytest.approx({n: 2.0 if n.endswith("audio") else 1.0 for n in plain})


@pytest.mark.parametrize("contrast", [ma_contrast, jomold_contrast])
@pytest.mark.parametrize("segments", [1, 7])
def test_a_contrast_of_any_length_is_finite_and_lower_for_equal_streams(contrast, segments):
    audio, visual = torch.randn(2, 3, segments, 6, generator=torch.Generator().manual_seed(1))
    apart, equal = contrast(audio, visual), contrast(audio, audio)
    assert apart.isfinite() and (equal < apart or segments == 1)


def test_mixed_pairs_have_the_audio_of_a_clip_and_the_visual_of_another():
    batch = refined(random_batch("avvp", clips=3))
    found = mixed(batch, torch.tensor([1, 2, 0]))
    assert len(found) == 6 and found.clips == 3
    assert torch.equal(found.audio[1::2], batch.audio)
    assert torch.equal(found.visual[1::2], batch.visual[[1, 2, 0]])
    weak = found.labels["weak"].float()
    assert torch.equal(weak[1::2] * found.labels["keep_audio"][1::2], batch.labels["weak"].float())
    seen = weak[1::2] * found.labels["keep_visual"][1::2]
    assert torch.equal(seen, batch.labels["weak"][[1, 2, 0]].float())
    assert [len(part) for part in found.split(2)] == [2, 4]
    assert [part.clip_id for part in found.split(3)] == [[name] * 2 for name in batch.clip_id]


def test_a_partner_is_another_clip_and_a_single_clip_has_none():
    drawn = torch.stack([draw_partners(4) for _ in range(50)])
    assert not (drawn == torch.arange(4)).any() and drawn.unique().numel() == 4
    single = random_batch("avvp", clips=1)
    assert mixed(single) is single
    assert terms({"contrast": "cross_video"}, single, prepare=True)["contrast"] == 0


@pytest.mark.parametrize(("encoder", "decoder"), [(e, "mmil") for e in sorted(ENCODERS)]
                         + [("mgn", d) for d in sorted(DECODERS)])  # fmt: skip
def test_what_belongs_to_classes_stays_whole_without_the_mixed_pairs(encoder, decoder):
    """Also in a batch of as many rows as classes, where lengths do not tell them apart."""
    rows = 50
    built = cell("avvp", encoder, decoder, "weak")
    batch = random_batch("avvp", clips=rows)
    output = built.model.eval()(batch.audio, batch.visual, batch.motion)
    both = {**output.encoding.aux, **output.parse.aux}
    assert {name for name, values in both.items() if len(values) != rows} <= CLASS_AUX
    given = dataclasses.replace(batch, rows_per_clip=2)
    aux = {name: torch.ones(rows, rows) for name in CLASS_AUX}
    parse = dataclasses.replace(output.parse, aux=output.parse.aux | aux)
    found, encoding, own = unmixed(parse, output.encoding, given)
    assert len(own) == len(encoding.audio) == len(found.segment.audio.values) == rows // 2
    assert all(found.aux[name].shape == (rows, rows) for name in CLASS_AUX)
    others = {n: v for n, v in {**found.aux, **encoding.aux}.items() if n not in CLASS_AUX}
    assert all(len(values) == rows // 2 for values in others.values())


@pytest.mark.parametrize("decoder", ["mmil", "cvcms", "leap", "dch"])
@pytest.mark.parametrize("supervision", ["weak", "pseudo"])
def test_mixed_pairs_count_in_the_contrast_alone(supervision, decoder):
    batch = random_batch("avvp", clips=4)
    plain = terms({}, batch, supervision, decoder)
    options = {"contrast": "cross_video", "contrast_after": 2}
    batch.moment = Moment(3, 0, 1)
    found = terms(options, batch, supervision, decoder, prepare=True)
    assert found.pop("contrast") > 0
    assert {k: float(v) for k, v in found.items()} == pytest.approx(
        {k: float(v) for k, v in plain.items()}, rel=1e-5
    )
    batch.moment = Moment(2, 0, 1)
    assert "contrast" not in terms(options, batch, supervision, decoder, prepare=True)


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
@pytest.mark.parametrize("contrast", ["ma", "jomold", "cross_video"])
def test_every_encoder_is_trained_with_denoising_and_each_contrast(tmp_path, encoder, contrast):
    ratios = np.full(25, 0.9)
    np.savez(tmp_path / "ratios.npz", audio=ratios, visual=ratios)
    options = {
        "contrast": contrast,
        "contrast_visual": "encoded" if contrast == "ma" else "stem",
        "denoise": "self",
        "noise_ratios": str(tmp_path / "ratios.npz"),
    }
    built = cell("avvp", encoder, "mmil", "weak", task_options=options)
    batch = random_batch("avvp", clips=6)
    batch.moment = Moment(2, 0, 1)
    with torch.no_grad():
        ready = built.task.prepare(built.model.train(), batch, Processes())
    assert {"keep_audio", "keep_visual"} <= set(ready.labels)
    output = built.model(ready.audio, ready.visual, ready.motion)
    found = built.task.loss(output.parse, output.encoding, ready)
    assert found["contrast"] != 0 and all(term.isfinite() for term in found.values())
    sum(found.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in built.model.parameters())


def test_denoising_without_ratios_says_how_to_make_them():
    built = cell("avvp", "han", "mmil", "weak", task_options={"denoise": "self"})
    with pytest.raises(UsageError, match="noise-ratio"):
        built.task.check_training_clips(
            TrainingClips(data="demo", checksum="0", batch_size=1, ids=list)
        )


def test_the_contrast_with_stem_vectors_is_refused_where_the_stem_gives_maps():
    options = {"task": "avvp", "encoder": "ave", "decoder": "mmil", "supervision": "weak"}
    config = compose(("file", options | {"task_config": {"contrast": "ma"}}))
    task = cell("avvp", "ave", "mmil", "weak", task_options={}).task
    task.config = config.task_config
    with pytest.raises(UsageError, match="ave reads maps; use encoded"):
        task.check("ave", "mmil", config.encoder_config, config.decoder_config)


def test_event_localization_says_why_it_has_no_labels_by_stream():
    with pytest.raises(UsageError, match="heard and seen at once by definition"):
        compose(("file", {"task": "avel", "task_config": {"contrast": "ma"}}))
    with pytest.raises(UsageError, match="heard and seen at once by definition"):
        parse(["--task", "avel", "--task-config.noise-ratios", "ratios.json"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select_by": "event_a"}, "figure of select_by.*event_A"),
        ({"patience": 3, "select_on": "last"}, "compares none"),
        ({"task_config": {"denoise_rounding": "carried"}}, "carry"),
    ],
)
def test_a_choice_of_the_epoch_that_cannot_be_made_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        compose(("file", {"task": "avvp", **options}))
