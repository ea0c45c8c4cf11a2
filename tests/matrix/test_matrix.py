"""Every encoder with every decoder, task and supervision.

Losses, gradients, updates, saving, odd sizes.

In double precision a gradient that vanishes identically comes out below 1e-14 of the model's
largest, and any other above 1e-12 of it, so one threshold tells them apart.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from avplatform.config.compose import compose
from avplatform.config.presets import preset_options
from avplatform.models.av_model import AVModel
from avplatform.models.contracts import STREAMS, FeatureSpec, Output, Parse
from avplatform.tasks.batch import Batch
from avplatform.training.optim import build_optimizer
from avplatform.training.step import StepResult, optimisation_step
from tests.matrix.zero_gradients import ZEROS, expected_zeros, pieces
from tests.models.cells import (
    CELLS,
    SUPERVISED_CELLS,
    Cell,
    build,
    build_cell,
    cell,
    inputs,
    random_batch,
)

pytestmark = pytest.mark.matrix

NOTHING = 1e-13  # of the model's largest gradient


class Steps(NamedTuple):
    """Two optimiser steps of a cell: measurements, first gradients, parameters before and after."""

    name: str
    result: StepResult
    gradients: dict[str, Tensor]
    before: dict[str, Tensor]
    after: dict[str, Tensor]


def two_steps(built: Cell, batch: Batch, name: str) -> Steps:
    config, task, model = built
    optimizer = build_optimizer(model.train(), config.optim)
    before = pieces(model, gradients=False)
    torch.manual_seed(1)  # dropout
    options = dict(lr=config.optim.lr, clip_norm=config.optim.clip_norm)
    result = optimisation_step(model, task, batch, optimizer, **options)
    gradients = pieces(model, gradients=True)
    optimisation_step(model, task, batch, optimizer, **options)
    return Steps(name, result, gradients, before, pieces(model, gradients=False))


@pytest.fixture(scope="module", params=SUPERVISED_CELLS, ids="-".join)
def steps(request) -> Steps:
    built = cell(*request.param)
    built.model.double()
    batch = random_batch(request.param[0]).to("cpu", torch.float64)
    return two_steps(built, batch, "-".join(request.param))


def check_losses(steps: Steps) -> None:
    assert steps.result.losses
    for name, value in {
        **steps.result.losses,
        "total": steps.result.total,
        "norm": steps.result.grad_norm,
    }.items():
        assert value.ndim == 0 and value.isfinite(), name
    torch.testing.assert_close(sum(steps.result.losses.values()), steps.result.total)


def silent(steps: Steps, threshold: float = NOTHING) -> set[str]:
    """Names of the parameters without gradient."""
    top = max(float(g.abs().max()) for g in steps.gradients.values())
    return {
        n
        for n in steps.before
        if n not in steps.gradients or steps.gradients[n].abs().max() <= threshold * top
    }


def test_the_loss_and_each_of_its_terms_are_finite(steps):
    check_losses(steps)


def test_every_gradient_is_finite(steps):
    assert [n for n, g in steps.gradients.items() if not g.isfinite().all()] == []


def test_exactly_the_listed_parameters_get_no_gradient(steps):
    assert silent(steps) == expected_zeros(steps.name, list(steps.before))


def test_every_parameter_with_a_gradient_moves(steps):
    kept = {n for n in steps.before if torch.equal(steps.before[n], steps.after[n])}
    assert kept <= expected_zeros(steps.name, list(steps.before))


@cache
def names_of(chosen: tuple[str, ...]) -> list[str]:
    return list(pieces(cell(*chosen).model, gradients=False))


@pytest.mark.parametrize("zero", ZEROS, ids=lambda z: z.parameters)
def test_no_entry_of_the_list_is_stale(zero):
    cells = [c for c in SUPERVISED_CELLS if re.fullmatch(zero.cells, "-".join(c))]
    assert cells
    for chosen in cells:
        names = names_of(chosen)
        assert any(re.fullmatch(zero.parameters, name) for name in names), chosen


@pytest.mark.parametrize("change", ["a parameter falls silent", "a listed one counts"])
def test_a_list_that_is_wrong_either_way_is_noticed(monkeypatch, change):
    built = cell("avvp", "han", "mmil", "weak")
    model = built.model.double()
    if change == "a parameter falls silent":
        real = model.stem.motion.forward
        monkeypatch.setattr(model.stem.motion, "forward", lambda x: real(x).detach())
        expected = {"stem.motion.weight", "stem.motion.bias"}
    else:
        real_loss, bias = built.task.loss, model.decoder.segment_attention.bias
        monkeypatch.setattr(
            built.task, "loss", lambda *args: {**real_loss(*args), "extra": bias.square().sum()}
        )
        expected = {"decoder.segment_attention.bias"}
    found = two_steps(built, random_batch("avvp").to("cpu", torch.float64), "avvp-han-mmil-weak")
    assert silent(found) ^ expected_zeros(found.name, list(found.before)) == expected


def predictions(parse: Parse) -> list[Tensor]:
    streams = [
        getattr(level, stream) for level in (parse.segment, parse.video) for stream in STREAMS
    ]
    return [p.values for p in (*streams, parse.relevance) if p is not None]


@pytest.mark.parametrize("chosen", CELLS, ids="-".join)
def test_saving_and_loading_gives_the_same_bits_and_config(chosen, tmp_path):
    model = build(*chosen)
    model.save_pretrained(tmp_path)
    loaded = AVModel.from_pretrained(tmp_path)
    assert loaded.config == model.config and not loaded.training
    data = inputs(chosen[0])
    a, b = model(*data), loaded(*data)
    values = [(*predictions(x.parse), x.encoding.audio, x.encoding.visual) for x in (a, b)]
    assert all(torch.equal(x, y) for x, y in zip(*values, strict=True))


def check_shapes(built: Cell, output: Output, clips: int, segments: int) -> None:
    parse, encoding = output
    classes = len(built.model.config.classes)
    assert (
        encoding.audio.shape
        == encoding.visual.shape
        == (clips, segments, built.model.encoder.width)
    )
    assert parse.relevance is None or parse.relevance.values.shape == (clips, segments)
    found = (
        parse.relevance is not None
    )  # CMBS's own head says which segments matter, and one class a clip
    for stream in STREAMS:
        segment, video = getattr(parse.segment, stream), getattr(parse.video, stream)
        assert segment is None or segment.values.shape == (clips, segments, classes)
        assert video is None or video.values.shape == (clips, classes)
        found = found or segment is not None
    assert found and all(v.isfinite().all() for v in predictions(parse))


BACKGROUND = {"avel": 28, "ovavel": 67}


def check_decisions(task: str, decisions: dict[str, Tensor], clips: int, segments: int) -> None:
    if task in BACKGROUND:
        found = decisions["segment"]
        assert found.shape == (clips, segments) and not found.is_floating_point()
        assert found.min() >= 0 and found.max() <= BACKGROUND[task]
        return
    assert {n: (d.shape, d.dtype) for n, d in decisions.items()} == {
        "audio": ((clips, segments, 25), torch.bool),
        "visual": ((clips, segments, 25), torch.bool),
        "video": ((clips, 25), torch.bool),
    }


@pytest.mark.parametrize("chosen", SUPERVISED_CELLS, ids="-".join)
@pytest.mark.parametrize(("clips", "segments"), [(3, 1), (2, 7), (2, 10), (1, 10)])
def test_any_number_of_clips_and_segments_is_parsed_scored_and_decided(chosen, clips, segments):
    built = cell(*chosen, segments=segments)
    _, task, model = built
    batch = random_batch(chosen[0], clips, segments)
    output = model.eval()(batch.audio, batch.visual, batch.motion)
    check_shapes(built, output, clips, segments)
    taught = model(batch.audio, batch.visual, batch.motion, asked=task.asked())
    terms = task.loss(*taught, batch)
    assert terms and all(t.ndim == 0 and t.isfinite() for t in terms.values())
    decisions = task.decide(output.parse)
    check_decisions(chosen[0], decisions, clips, segments)
    metrics = task.metrics()
    metrics.update(decisions, batch)
    assert len(metrics) == clips
    assert all(0 <= value <= 100 for value in metrics.compute().values())
    assert len(task.tracks(decisions, batch)) == clips


LLP = FeatureSpec(audio_dim=128, visual_dim=2048, motion_dim=512)
AVE = FeatureSpec(audio_dim=128, visual_dim=512, map_size=(7, 7))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "features", "frames"),
    [
        ("han-mmil-avvp-weak-official", LLP, 10),
        ("han-mmil-avvp-weak-official", LLP, 80),
        ("mgn-group-avvp-weak-official", LLP, 80),
        ("mmpyr-mmil-avvp-weak-official", LLP, 10),
        ("mmpyr-mmil-avvp-weak-official", LLP, 80),
        ("mmpyr-leap-avvp-official", LLP, 80),
        ("ave-dch-avel-official", AVE, 10),
        ("ave-dch-avel-weak-official", AVE, 10),
        ("psp-dch-avel-official", AVE, 10),
        ("psp-dch-avel-weak-official", AVE, 10),
        ("cmbs-dch-avel-official", AVE, 10),
        ("cmbs-dch-avel-weak-official", AVE, 10),
    ],
)
def test_published_widths_take_their_steps(preset, features, frames):
    options = preset_options(preset)
    names = [options[key] for key in ("task", "encoder", "decoder", "supervision")]
    config = compose((preset, options))
    # Of four clips, stochastic depth hardly leaves out the same branch.
    batch = random_batch(names[0], clips=4, features=features)
    if frames != 10:
        batch.visual = torch.randn(
            4, frames, features.visual_dim, generator=torch.Generator().manual_seed(2)
        )
    found = two_steps(build_cell(config, features), batch, "-".join(names))
    check_losses(found)
    assert [n for n, g in found.gradients.items() if not g.isfinite().all()] == []
    # In single precision rounding hides the smallest gradients, so only absent ones count as none.
    assert silent(found, threshold=0.0) <= expected_zeros(found.name, list(found.before))
    kept = {n for n in found.before if torch.equal(found.before[n], found.after[n])}
    assert kept <= expected_zeros(found.name, list(found.before))
