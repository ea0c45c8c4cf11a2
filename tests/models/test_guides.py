"""Guide networks are trained beside a model, teach it, and leave no trace in what is saved."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from avplatform.config.compose import compose
from avplatform.config.optim import OptimConfig
from avplatform.models.av_model import AVModel, count_parameters
from avplatform.models.errors import UsageError
from avplatform.tasks.avvp.mixing import mixed
from avplatform.tasks.losses import clamped_bce
from avplatform.training.optim import build_optimizer
from tests.models.cells import Cell, cell, inputs, random_batch

GUIDES = {"guides": True, "guide_width": 8}
MAIN = {"audio", "visual", "global", "follow_audio", "follow_visual", "apart"}


def guided(task: str = "avvp", decoder: str = "mmil", encoder: str = "dhhn") -> Cell:
    built = cell(task, encoder, decoder, "weak", task_options=GUIDES)
    built.model.train()
    return built


def terms_of(built: Cell) -> dict[str, Tensor]:
    batch = random_batch(built.config.task)
    output = built.model(batch.audio, batch.visual, batch.motion)
    return built.task.loss(output.parse, output.encoding, batch)


def trained_by(value: Tensor, model: nn.Module) -> set[str]:
    """Names of the parameters that a loss moves."""
    model.zero_grad(set_to_none=True)
    value.backward(retain_graph=True)
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


def test_the_model_learns_from_the_guides_and_the_guides_from_the_labels_alone():
    built = guided()
    terms = terms_of(built)
    assert set(terms) == MAIN | {"guide_audio", "guide_visual", "guide_apart"}
    main = trained_by(sum(terms[name] for name in MAIN), built.model)
    assert main and not any(name.startswith("companion.") for name in main)
    guides = trained_by(terms["guide_audio"] + terms["guide_visual"], built.model)
    assert guides and all(name.startswith("companion.") for name in guides)
    assert "encoder.layer.norm1.weight" in trained_by(terms["follow_visual"], built.model)


@pytest.mark.parametrize(
    ("options", "smoothed"),
    [
        ({}, False),
        ({"contrast": "cross_video"}, False),  # its mixed clips have masks, and drop nothing
        ({"refined": "labels.json"}, True),
        ({"denoise": "self", "noise_ratios": "ratios.json"}, True),  # also in the warm-up
    ],
)
def test_guides_learn_smoothed_labels_where_the_options_refine_labels(options, smoothed):
    """And not where a batch happens to have masks: smoothing 0.9 makes 0.95 of a visual label."""
    built = cell("avvp", "dhhn", "mmil", "weak", task_options={**GUIDES, **options})
    batch = random_batch("avvp", clips=4)
    mixing = options.get("contrast") == "cross_video"
    batch = mixed(batch, torch.tensor([1, 2, 3, 0])) if mixing else batch
    output = built.model.train()(batch.audio, batch.visual, batch.motion)
    terms = built.task.loss(output.parse, output.encoding, batch)
    step = batch.rows_per_clip
    weak = batch.labels["weak"][::step]
    target = weak * 0.9 + 0.05 if smoothed else weak
    guide = output.encoding.aux["guide_visual"][::step]
    torch.testing.assert_close(terms["guide_visual"], clamped_bce(guide, target))


@pytest.mark.parametrize("encoder", ["han", "mgn"])
def test_any_encoder_can_have_guides(encoder):
    assert {"follow_audio", "guide_visual"} <= set(terms_of(guided(encoder=encoder)))


def test_events_that_are_heard_and_seen_are_not_pushed_apart():
    for decoder in ("mmil", "leap", "group"):
        terms = terms_of(guided("avel", decoder))
        assert {"follow_audio", "follow_visual", "guide_audio", "guide_visual"} <= set(terms)
        assert "apart" not in terms and "guide_apart" not in terms


def test_guides_are_silent_outside_training_and_are_not_saved(tmp_path):
    model = guided().model.eval()
    before = model(*inputs("avvp"))
    assert "guide_audio" not in before.encoding.aux
    assert model.num_parameters + count_parameters(model.companion) == count_parameters(model)
    model.save_pretrained(tmp_path)
    loaded = AVModel.from_pretrained(tmp_path)
    assert loaded.companion is None and loaded.num_parameters == model.num_parameters
    after = loaded(*inputs("avvp"))
    assert torch.equal(after.parse.video.av.values, before.parse.video.av.values)


def test_guides_have_learning_rates_of_their_own():
    model = guided().model
    optimizer = build_optimizer(model, OptimConfig(lr=0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    found = {
        names[id(p)]: group["lr_scale"] for group in optimizer.param_groups for p in group["params"]
    }
    assert len(found) == len(names)
    for name, scale in found.items():
        if name.startswith(("companion.audio.", "companion.stem.audio.")):
            assert scale == 2.0
        else:
            assert scale == (0.2 if name.startswith("companion.") else 1.0)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"task": "avel", "encoder": "dhhn", "decoder": "dch", "task_config": {"guides": True}},
         "predicts their events together"),
        ({"task_config": {"guide_audio_rate": 3.0}}, "it is for guides"),
        ({"task_config": {"apart_weight": 0.5}}, "it is for guides"),
        ({"task_config": {"guides": True, "guide_width": 12}}, "must be a multiple of 8"),
        ({"task_config": {"guides": True, "guide_visual_rate": 0.0}}, "guide_visual_rate is 0.0"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_named(layer, message):
    with pytest.raises(UsageError, match=message):
        config = compose(("here", {"task": "avvp", "decoder": "mmil", **layer}))
        task = cell(config.task, config.encoder, config.decoder, config.supervision).task
        task = type(task)(config.task_config, classes=task.classes)
        task.check(config.encoder, config.decoder, config.encoder_config, config.decoder_config)
