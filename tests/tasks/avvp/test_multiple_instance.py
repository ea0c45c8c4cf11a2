"""Weak labels on pooled segments: pooling, its gradient, and the options."""

import pytest
import torch

from avplatform.data.adapters.registry import make_task
from avplatform.models.contracts import Parse, Prediction, StreamPredictions
from avplatform.models.decoders.leap_config import LEAPConfig
from avplatform.models.encoders.han import HANConfig
from avplatform.models.errors import UsageError
from avplatform.tasks.avvp import AVVPConfig
from avplatform.tasks.avvp.losses import multiple_instance_loss, pooled

POOLINGS = ("linear", "attention", "top", "noisy_or")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_says_yes_for_one_sure_segment_and_no_for_none(pooling):
    p = torch.full((2, 10, 1), 1e-4, dtype=torch.float64)
    p[0, 3] = 0.999
    if pooling == "top":
        p[0, 3:6] = 0.999
    yes, no = pooled(p, pooling)[:, 0]
    assert yes > 0.95 and no < 2e-3


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("linear", (0.04 + 0.64 + 0.25) / 1.5),
        ("attention", (0.25 * 0.2 + 4 * 0.8 + 1 * 0.5) / 5.25),  # odds of 0.2, 0.8 and 0.5
        ("top", 0.5),
        ("noisy_or", 1 - 0.8 * 0.2 * 0.5),
    ],
)
def test_pooling_is_what_its_formula_says(pooling, expected):
    p = torch.tensor([0.2, 0.8, 0.5], dtype=torch.float64).reshape(1, 3, 1)
    assert pooled(p, pooling).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_segments_learn_when_from_the_label_of_their_clip(pooling):
    """Class 0 has evidence in two segments of the first clip only; no label says in which."""
    evidence = torch.zeros(2, 6, 1, dtype=torch.float64)
    evidence[0, 2:4] = 1.0
    gain, bias = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.Adam([gain, bias], lr=0.2)
    weak = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    for _ in range(200):
        segment = Prediction(gain * evidence + bias)
        whole = Prediction(segment.values.amax(dim=1))
        parse = Parse(
            segment=StreamPredictions(audio=segment, visual=segment),
            video=StreamPredictions(audio=whole, visual=whole),
        )
        terms = multiple_instance_loss(parse, weak, pooling=pooling, visual_smooth=1.0)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    found = segment.probability[:, :, 0] >= 0.5
    assert found[0].tolist() == [False, False, True, True, False, False] and not found[1].any()


def test_the_options_of_pooling_are_read_by_its_objective_only():
    task = make_task("avvp", AVVPConfig(supervision="weak", pooling="top"))
    with pytest.raises(UsageError, match="pooling"):
        task.check("han", "leap", HANConfig(), LEAPConfig())
    make_task("avvp", AVVPConfig(supervision="weak", objective="mil", pooling="top")).check(
        "han", "leap", HANConfig(), LEAPConfig()
    )
