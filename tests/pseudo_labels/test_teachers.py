"""Frames and waveforms through CLIP and CLAP with random weights.

The procedure is done again with the models' own forward pass.

No real weights are used, so this shows that the path is right, not that real labels come out.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from avplatform.cli import main
from avplatform.data.adapters.llp.prompts import prompts
from avplatform.features.teachers import CLAPTeacher, CLIPTeacher
from avplatform.models.errors import DataError, UsageError
from avplatform.pseudo_labels.sources import MediaFiles
from tests.pseudo_labels.files import (
    VIDEOS,
    arrays,
    frame_folders,
    llp_folder,
    waveforms,
    write_wav,
)
from tests.pseudo_labels.test_make import weak_of
from tests.pseudo_labels.test_rule import PLAIN_THRESHOLDS

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    llp_folder(folder / "llp")
    frame_folders(folder / "frames")
    waveforms(folder / "waves")
    return folder


def clip_logits(name, images):
    """CLIP's own forward on images that torchvision prepared."""
    prepare = v2.Compose([
        v2.Resize((32, 32)),
        v2.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ])  # fmt: skip
    pixels = torch.stack([prepare(v2.functional.to_image(image).float() / 255) for image in images])
    tokens = transformers.CLIPTokenizer.from_pretrained(name)(
        list(prompts("visual")), padding=True, return_tensors="pt"
    )
    model = transformers.CLIPModel.from_pretrained(name).eval()
    with torch.no_grad():
        return model(pixel_values=pixels, **tokens).logits_per_image.numpy()


def clap_logits(name, segments):
    """CLAP's own forward, a segment at a time."""
    processor = transformers.ClapProcessor.from_pretrained(name)
    model = transformers.ClapModel.from_pretrained(name).eval()
    tokens = processor.tokenizer(list(prompts("audio")), padding=True, return_tensors="pt")
    rows = []
    for segment in segments:
        mel = processor.feature_extractor(segment, sampling_rate=48_000, return_tensors="pt")[
            "input_features"
        ]
        with torch.no_grad():
            longer = torch.tensor([[False]])
            rows.append(
                model(input_features=mel.float(), is_longer=longer, **tokens)
                .logits_per_audio[0]
                .numpy()
            )
    return np.stack(rows)


def wav_samples(folder, video):
    """The samples behind the 44 bytes of a wav file's header."""
    return np.frombuffer((folder / f"{video}.wav").read_bytes()[44:], "<i2") / 2**15


def test_frames_and_waveforms_become_labels(tiny_teachers, media, tmp_path, capsys):
    random_state = np.random.get_state()[1].tolist()
    out = tmp_path / "out"
    command = [
        "pseudo-label", "--annotations", media / "llp", "--out", out, "--frames", media / "frames",
        "--waveforms", media / "waves", "--clip-model", tiny_teachers["clip"],
        "--clap-model", tiny_teachers["clap"], "--visual-threshold-offset", "-15",
        "--audio-threshold-offset", "-2", "--save-logits", "--cpu", "--splits", "validation",
    ]  # fmt: skip
    assert main([str(word) for word in command]) == 0
    assert np.random.get_state()[1].tolist() == random_state
    for video in VIDEOS[1:2]:  # the validation split
        chosen = [round(k * 11 / 9) + 1 for k in range(10)]  # of 12 frames, numbered from 1
        images = [Image.open(media / "frames" / video / f"{n}.png") for n in chosen]
        samples = wav_samples(media / "waves", video)
        starts = [round(i * len(samples) / 10) for i in range(10)]
        segments = [samples[start : start + len(samples) // 10] for start in starts]
        expected = {
            "visual": clip_logits(tiny_teachers["clip"], images),
            "audio": clap_logits(tiny_teachers["clap"], segments),
        }
        for modality, teacher, offset in (("visual", "CLIP", -15), ("audio", "CLAP", -2)):
            logits = np.load(out / teacher / "logits" / f"{video}.npy")
            np.testing.assert_allclose(logits, expected[modality], rtol=1e-4, atol=1e-3)
            assert (
                np.ptp(logits, axis=0).min() > 0.05 and np.ptp(logits, axis=1).min() > 0.05
            )  # nothing is interchangeable
            labels = np.load(out / teacher / "segment_pseudo_labels" / f"{video}.npy")
            limits = np.array(PLAIN_THRESHOLDS[modality]) + offset
            assert (
                labels.tolist()
                == ((logits > limits) & (np.array(weak_of(video)) == 1)).astype(int).tolist()
            )
    record = json.loads((out / "pseudo_labels.json").read_text())["modalities"]
    assert record["visual"]["settings"]["model"] == tiny_teachers["clip"]
    assert record["visual"]["settings"]["prompts"] == list(prompts("visual"))
    assert record["audio"]["settings"]["prompts"] == list(prompts("audio"))
    assert record["audio"]["settings"]["scale"] == pytest.approx(1 / 0.07)


def test_the_processors_random_draw_changes_nothing(tiny_teachers, media):
    teacher = CLAPTeacher(tiny_teachers["clap"])
    source = MediaFiles(media / "waves", modality="audio", teacher=teacher)
    np.random.seed(0)
    first = source.logits(VIDEOS[0])
    np.random.seed(5)
    assert (source.logits(VIDEOS[0]) == first).all()


def test_the_spelling_changes_the_text_features_of_two_classes(tiny_teachers):
    teacher = CLIPTeacher(tiny_teachers["clip"])
    official, corrected = (
        teacher.text_features(prompts("visual", s)).vectors for s in ("official", "corrected")
    )
    changed = ~np.isclose(official, corrected, rtol=1e-5, atol=1e-6).all(axis=1)
    assert np.flatnonzero(changed).tolist() == [14, 20]


def test_texts_are_embedded_once(tiny_teachers, media, monkeypatch):
    calls = []
    whole = CLIPTeacher.text_features
    monkeypatch.setattr(
        CLIPTeacher, "text_features", lambda self, texts: calls.append(texts) or whole(self, texts)
    )
    source = MediaFiles(
        media / "frames", modality="visual", teacher=CLIPTeacher(tiny_teachers["clip"])
    )
    for video in VIDEOS:
        source.logits(video)
    assert calls == [prompts("visual")]


def test_features_can_be_scored_against_a_models_own_prompts(tiny_teachers, media, tmp_path):
    arrays(tmp_path / "features", (10, 12))
    command = ["pseudo-label", "--annotations", media / "llp", "--out", tmp_path / "out",
               "--save-logits", "--cpu", "--audio-features", tmp_path / "features",
               "--clap-model", tiny_teachers["clap"]]  # fmt: skip
    assert main([str(word) for word in command]) == 0
    texts = CLAPTeacher(tiny_teachers["clap"]).text_features(prompts("audio"))
    feature = np.load(tmp_path / "features" / f"{VIDEOS[0]}.npy")
    unit = feature / np.linalg.norm(feature, axis=1, keepdims=True)
    logits = np.load(tmp_path / "out" / "CLAP" / "logits" / f"{VIDEOS[0]}.npy")
    np.testing.assert_allclose(logits, unit @ texts.vectors.T / 0.07, rtol=1e-4, atol=1e-5)


def test_bad_media_are_left_out_and_listed(tiny_teachers, media, tmp_path, capsys):
    shutil.copytree(media / "frames", tmp_path / "frames")
    shutil.copytree(media / "waves", tmp_path / "waves")
    (tmp_path / "frames" / VIDEOS[0] / "1.png").write_bytes(b"not an image")
    write_wav(tmp_path / "waves" / f"{VIDEOS[1]}.wav", np.zeros(70_000), rate=44_100)
    command = ["pseudo-label", "--annotations", media / "llp", "--out", tmp_path / "out", "--cpu",
               "--splits", "train", "validation",
               "--frames", tmp_path / "frames", "--waveforms", tmp_path / "waves",
               "--clip-model", tiny_teachers["clip"],
               "--clap-model", tiny_teachers["clap"]]  # fmt: skip
    assert main([str(word) for word in command]) == 1
    shown = capsys.readouterr().out
    assert "visual: 1 of 2 clips" in shown and "cannot read the frame" in shown
    assert "audio: 1 of 2 clips" in shown and "44100 Hz" in shown and "ffmpeg" in shown


def test_models_that_are_not_there_or_not_right_are_refused(tiny_teachers, tmp_path):
    with pytest.raises(DataError, match="cannot load .*nowhere"):
        CLIPTeacher(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="is a model of type 'clap'; give one of type 'clip'"):
        CLIPTeacher(tiny_teachers["clap"])
    half = shutil.copytree(tiny_teachers["clip"], tmp_path / "half")
    from safetensors.torch import load_file, save_file

    weights = load_file(half / "model.safetensors")
    weights.pop("visual_projection.weight")
    save_file(weights, half / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="lacks 1 weight, visual_projection.weight among them"):
        CLIPTeacher(str(half))


@pytest.mark.parametrize(("kind", "teacher"), [("clip", CLIPTeacher), ("clap", CLAPTeacher)])
def test_weights_in_pickle_are_not_read(tiny_teachers, tmp_path, kind, teacher):
    folder = shutil.copytree(tiny_teachers[kind], tmp_path / kind)
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        DataError, match="has no model.safetensors, and weights in pickle .* are not read"
    ):
        teacher(str(folder))
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot load .*header"):
        teacher(str(folder))


def test_without_transformers_the_extra_is_named(tiny_teachers, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UsageError, match=r"pip install 'avplatform\[text\]'"):
        CLIPTeacher(tiny_teachers["clip"])
