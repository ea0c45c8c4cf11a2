"""What the robustness card does to clips."""

import numpy as np
import pytest
import torch

from avplatform.data import open_data
from avplatform.data.adapters.registry import make_task
from avplatform.evaluation.perturbations import (
    add_noise,
    drop,
    freeze_video,
    mean_audio,
    perturbations,
    shift_audio,
)
from avplatform.tasks.batch import Batch


def batch(frames=1, motion=True):
    generator = torch.Generator().manual_seed(0)
    return Batch(
        audio=torch.randn(3, 10, 4, generator=generator),
        visual=torch.randn(3, 10 * frames, 5, generator=generator),
        motion=torch.randn(3, 10, 2, generator=generator) if motion else None,
        row=torch.tensor([7, 8, 9]),
        clip_id=["a", "b", "c"],
        labels={
            name: (torch.rand(3, 10, 2, generator=generator) < 0.5).float()
            for name in ("dense_audio", "dense_visual")
        },
    )


def test_late_sound_takes_its_labels_along_and_leaves_the_picture():
    before, after = batch(), shift_audio(batch(), segments=2)
    for old, new in (
        (before.audio, after.audio),
        (before.labels["dense_audio"], after.labels["dense_audio"]),
    ):
        assert torch.equal(new[:, 2:], old[:, :8]) and all(
            torch.equal(new[:, t], old[:, 0]) for t in (0, 1)
        )
    assert torch.equal(before.visual, after.visual)
    assert torch.equal(before.labels["dense_visual"], after.labels["dense_visual"])


@pytest.mark.parametrize("frames", [1, 3])
def test_a_frozen_video_repeats_its_first_segment(frames):
    before, after = batch(frames), freeze_video(batch(frames))
    assert after.visual.shape == before.visual.shape
    for t in range(10):
        assert torch.equal(
            after.visual[:, t * frames : (t + 1) * frames], before.visual[:, :frames]
        )
        assert torch.equal(after.motion[:, t], before.motion[:, 0])
    assert torch.equal(before.audio, after.audio)


def test_a_missing_modality_is_zeros_in_its_own_stream_only():
    before = batch()
    silent, blind = drop(before, stream="audio"), drop(before, stream="visual")
    assert not silent.audio.any() and torch.equal(silent.visual, before.visual)
    assert (
        not blind.visual.any() and not blind.motion.any() and torch.equal(blind.audio, before.audio)
    )


@pytest.mark.parametrize("decibels", [20, 0])
def test_noise_has_the_power_that_is_asked_for(decibels):
    clip = Batch(audio=3 + 2 * torch.randn(2, 10, 4000), visual=torch.zeros(2, 10, 1), motion=None,
                 row=torch.tensor([1, 2]), clip_id=["a", "b"])  # fmt: skip
    noise = add_noise(clip, stream="audio", decibels=decibels, seed=0).audio - clip.audio
    assert 10 * torch.log10(clip.audio.var() / noise.var()).item() == pytest.approx(
        decibels, abs=0.2
    )


def test_noise_depends_on_the_clip_and_the_seed_alone():
    whole = add_noise(batch(), stream="visual", decibels=10, seed=0)
    part = add_noise(batch().select(slice(1, 3)), stream="visual", decibels=10, seed=0)
    assert torch.equal(whole.visual[1:], part.visual) and torch.equal(whole.motion[1:], part.motion)
    assert not torch.equal(
        whole.visual, add_noise(batch(), stream="visual", decibels=10, seed=5).visual
    )
    assert torch.equal(whole.audio, batch().audio)
    noise = whole.visual - batch().visual
    assert not torch.allclose(noise[0] / noise[0].std(), noise[1] / noise[1].std())


@pytest.mark.parametrize("task", ["avel", "avvp"])
def test_no_perturbation_changes_the_clips_themselves(small_stores, task):
    split = open_data(str(small_stores[task]), task=task).split("test")
    audio = split.columns()["audio"].astype("float64")
    assert mean_audio(split).numpy() == pytest.approx(audio.mean(axis=(0, 1)), rel=1e-3, abs=1e-5)
    clean = split.batch(range(4))
    for name, change in perturbations(split).items():
        given = split.batch(range(4))
        changed = change(given)
        assert torch.equal(given.audio, clean.audio) and torch.equal(given.visual, clean.visual)
        assert (
            changed.audio.shape == clean.audio.shape and changed.visual.shape == clean.visual.shape
        )
        assert not (
            torch.equal(changed.audio, clean.audio) and torch.equal(changed.visual, clean.visual)
        ), name
        assert changed.audio.dtype == clean.audio.dtype and torch.isfinite(changed.visual).all()


def test_clean_decisions_move_along_with_late_sound():
    rng = np.random.default_rng(0)
    task = make_task("avvp")
    state = {"row": np.arange(4), "video": np.ones((4, 25), bool), "weak": np.ones((4, 25), bool)}
    for stream in ("audio", "visual"):
        state[f"true_{stream}"] = rng.random((4, 10, 25)) < 0.3
        state[f"predicted_{stream}"] = state[f"true_{stream}"].copy()
    moved = task.analysis().late(state, 3)
    assert np.array_equal(moved["true_audio"][:, 3:], state["true_audio"][:, :7])
    assert np.array_equal(moved["predicted_audio"], moved["true_audio"])
    assert np.array_equal(moved["predicted_visual"], state["predicted_visual"])
