"""Schedules and clipping do what the recipes say."""

import math

import pytest
import torch

from avplatform.config.optim import OptimConfig, ScheduleConfig
from avplatform.models.contracts import Output
from avplatform.models.errors import UsageError
from avplatform.tasks.batch import Batch
from avplatform.tasks.contracts import Task
from avplatform.training.optim import build_optimizer, clip_gradients, learning_rate
from avplatform.training.step import optimisation_step


def test_epoch_decay_multiplies_after_every_tenth_epoch():
    schedule = ScheduleConfig(name="epoch_decay", factor=0.1, every=10)
    rates = [learning_rate(schedule, base_lr=1.0, epoch=e) for e in (1, 10, 11, 20, 21)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_step_decay_acts_one_step_early_because_ave_steps_the_schedule_first():
    schedule = ScheduleConfig(name="step_decay", factor=0.1, every=15000)
    rates = [
        learning_rate(schedule, base_lr=1.0, epoch=1, step=s) for s in (0, 14998, 14999, 29999)
    ]
    assert rates == pytest.approx([1, 1, 0.1, 0.01])


def test_warmup_reaches_the_full_rate_and_the_cosine_ends_at_its_floor():
    schedule = ScheduleConfig(name="warmup_cosine", warmup_epochs=10, min_ratio=0.01)
    rates = [learning_rate(schedule, base_lr=1.0, epoch=e, epochs=60) for e in (1, 10, 35, 60)]
    assert rates == pytest.approx([0.1, 1.0, 0.505, 0.01])


def test_late_decay_acts_once_after_its_share_of_steps():
    schedule = ScheduleConfig(name="late_decay", after=0.75)
    rates = [
        learning_rate(schedule, base_lr=1.0, epoch=1, step=s, total_steps=100)
        for s in (0, 74, 75, 99)
    ]
    assert rates == pytest.approx([1, 1, 0.1, 0.1])


def test_milestones_act_after_their_epochs():
    schedule = ScheduleConfig(name="milestones", factor=0.8, milestones=(60, 120))
    rates = [learning_rate(schedule, base_lr=1.0, epoch=e) for e in (60, 61, 121)]
    assert rates == pytest.approx([1, 0.8, 0.64])


def test_clipping_scales_to_the_limit_and_returns_the_norm_before():
    parameter = torch.zeros(4, requires_grad=True)
    parameter.grad = torch.full((4,), 3.0)
    norm = clip_gradients([parameter], 1.0)
    assert norm.item() == pytest.approx(6.0)
    assert parameter.grad.norm().item() == pytest.approx(6.0 / (6.0 + 1e-6))


def test_no_clipping_leaves_gradients_alone():
    parameter = torch.zeros(2, requires_grad=True)
    parameter.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients([parameter], None).item() == pytest.approx(5.0)
    assert parameter.grad.tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    "values",
    [
        {"lr": 0},
        {"lr": -1e-3},
        {"lr": math.nan},
        {"betas": (0.9, 1.0)},
        {"clip_norm": 0.0},
        {"weight_decay": -1.0},
    ],
)
def test_values_out_of_range_are_refused_by_name(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        OptimConfig(**values)


def test_decoupled_decay_differs_from_the_penalty():
    steps = {}
    for name in ("adam", "adamw"):
        layer = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(layer.weight, 2.0)
        optimizer = build_optimizer(layer, OptimConfig(name=name, lr=0.1, weight_decay=0.5))
        layer(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        steps[name] = layer.weight.item()
    assert steps["adam"] == pytest.approx(1.9, abs=1e-6)
    assert steps["adamw"] == pytest.approx(2.0 * (1 - 0.1 * 0.5) - 0.1, abs=1e-6)


def test_a_norm_that_nobody_asks_for_is_not_measured_and_changes_no_step():
    moved = []
    for measure in (True, False):
        torch.manual_seed(0)
        layer = torch.nn.Linear(2, 1)
        batch = Batch(
            audio=torch.ones(1, 2),
            visual=torch.ones(1, 2),
            motion=None,
            row=torch.zeros(1),
            clip_id=["a"],
        )
        result = optimisation_step(
            _Toy(layer),
            _SumLoss(None, classes=("Dog",)),
            batch,
            build_optimizer(layer, OptimConfig()),
            lr=0.1,
            measure_norm=measure,
        )
        assert (result.grad_norm is None) == (not measure)
        moved.append(layer.weight.detach().clone())
    assert torch.equal(*moved)


def test_a_clipped_step_measures_the_norm_in_any_case():
    layer = torch.nn.Linear(2, 1)
    batch = Batch(
        audio=torch.ones(1, 2),
        visual=torch.ones(1, 2),
        motion=None,
        row=torch.zeros(1),
        clip_id=["a"],
    )
    options = dict(lr=0.1, clip_norm=1.0, measure_norm=False)
    result = optimisation_step(
        _Toy(layer),
        _SumLoss(None, classes=("Dog",)),
        batch,
        build_optimizer(layer, OptimConfig()),
        **options,
    )
    assert result.grad_norm.item() == pytest.approx(3**0.5)
    assert layer.weight.grad.norm().item() < 1


class _Toy(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, audio, visual, motion):
        return Output(self.layer(audio), None)


class _SumLoss(Task):
    def loss(self, parse, encoding, batch):
        return {"sum": parse.sum()}
