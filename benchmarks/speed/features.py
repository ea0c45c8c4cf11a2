"""Raw video to features, against the usual pipeline of .jpg and .wav files and single images.

The usual pipeline writes 8 frames per second as .jpg files and the sound as a .wav file, reads them
again with PIL and `wave`, and runs the networks on one input after the other in float32. Ours
decodes to tensors and runs batches, in float32 and in bf16 with channels last. Both use the same
frames, and the same networks with the same random weights (the time does not depend on them); their
features are compared before anything is timed, within what .jpg files and another scaling filter
change. LLP's own networks (ResNet-152, R(2+1)D-18, VGGish) read two seconds of the video, which are
16 images and two motion clips; a light network reads all ten.
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms
from torchvision.models.video import r2plus1d_18

from avplatform.features import mel
from avplatform.features.backbones import KINETICS_MEAN, KINETICS_STD
from avplatform.features.extractor import Extractor
from avplatform.features.recipe import FeatureRecipe
from avplatform.features.vggish import CONVOLUTIONS, VGGish
from benchmarks.timing import Comparison, Setting, Side

SECONDS = 10
"""Length of the video that is made."""
TOLERANCE = 0.1
"""Largest difference of features, as a share of their largest value."""


def comparisons(setting: Setting) -> dict[str, Callable[[], Iterable[Comparison]]]:
    """Return what is timed: LLP's own networks, and a light one."""
    llp = FeatureRecipe(name="llp", audio="vggish", visual="timm:resnet152", motion="r2plus1d_18")
    light = FeatureRecipe(name="light", audio="vggish", visual="timm:tf_efficientnet_lite0")
    return {
        "llp networks": partial(extraction, setting, llp, 2, (None, None), (2.2, 2.5)),
        "light network": partial(extraction, setting, light, SECONDS, (None, None), (2.0, 2.0)),
    }


def extraction(
    setting: Setting,
    recipe: FeatureRecipe,
    seconds: int,
    fp32: tuple[float | None, float | None],
    bf16: tuple[float, float],
) -> Iterable[Comparison]:
    """Yield one video by a recipe, in float32 and, where the CPU has it, in bfloat16."""
    folder = setting.folder / recipe.name
    folder.mkdir()
    video = make_video(folder / "made.mp4", seconds)
    weights = make_weights(folder, recipe)
    plain = Plain(recipe, weights, folder / "frames", seconds)
    wanted = plain.clip(video)
    assert all(difference(np.roll(v, 1, axis=0), v) > TOLERANCE for v in wanted.values())
    what = {"resnet152": "ResNet-152, R(2+1)D-18, VGGish"}
    name = recipe.visual.partition(":")[2]
    title = f"{seconds} s of video to features, {what.get(name, f'{name}, VGGish')}"
    kinds = {"fp32": ("float32", fp32), **({"bf16": ("bfloat16", bf16)} if setting.bf16 else {})}
    sides = []
    for kind, (dtype, goals) in kinds.items():
        extractor = Extractor(recipe, weights, dtype=dtype, batch=16)
        sides.append(
            Side(
                name=f"{title}, {kind}",
                run=partial(extractor.clip, video),
                difference=partial(apart, extractor, video, wanted),
                tolerance=TOLERANCE,
                floor=goals[0],
                aim=goals[1],
            )
        )
    yield Comparison(title=title, plain=partial(plain.clip, video), sides=sides)


def apart(extractor: Extractor, video: Path, wanted: dict[str, np.ndarray]) -> float:
    """Return the largest difference of features, as a share of the largest value."""
    found = extractor.clip(video)
    return max(difference(getattr(found, stream), values) for stream, values in wanted.items())


class Plain:
    """The usual pipeline, with our networks in float32."""

    def __init__(
        self, recipe: FeatureRecipe, weights: dict[str, Path], frames: Path, seconds: int
    ) -> None:
        self.frames, self.seconds = frames, seconds
        network = timm.create_model(
            recipe.visual.partition(":")[2], pretrained=False, num_classes=0
        )
        tensors = {k: v for k, v in read(weights["visual"]).items() if k in network.state_dict()}
        network.load_state_dict(tensors)
        self.network = network.eval()
        config: Any = network.pretrained_cfg
        side = int(config["input_size"][-1])
        self.transform = transforms.Compose(
            [
                transforms.Resize(round(side / config["crop_pct"])),
                transforms.CenterCrop(side),
                transforms.ToTensor(),
                transforms.Normalize(config["mean"], config["std"]),
            ]
        )
        self.vggish = VGGish().eval()
        self.vggish.load_state_dict(read(weights["vggish"]))
        self.motion = None
        if recipe.motion:
            self.motion = r2plus1d_18(weights=None)
            self.motion.load_state_dict(read(weights["motion"]))
            self.motion.fc = torch.nn.Identity()
            self.motion.eval()
            self.small = transforms.Compose(
                [
                    transforms.Resize((112, 112)),
                    transforms.ToTensor(),
                    transforms.Normalize(KINETICS_MEAN, KINETICS_STD),
                ]
            )

    @torch.no_grad()
    def clip(self, video: Path) -> dict[str, np.ndarray]:
        """Write, read, and run one by one."""
        self.frames.mkdir(exist_ok=True)
        for old in self.frames.iterdir():
            old.unlink()
        write_frames(video, self.frames)
        write_sound(video, self.frames / "sound.wav")
        files = sorted(self.frames.glob("*.jpg"))
        chosen = [
            files[i] for i in np.round(np.linspace(0, len(files) - 1, 8 * self.seconds)).astype(int)
        ]
        vectors = [
            self.network(self.transform(Image.open(file).convert("RGB"))[None])[0]
            for file in chosen
        ]
        with wave.open(str(self.frames / "sound.wav")) as sound:
            samples = (
                np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.float32)
                / 32768
            )
        heard = [
            self.vggish(torch.from_numpy(patch[None]))[0]
            for patch in mel.patches(samples, self.seconds)
        ]
        visual = torch.stack(vectors).unflatten(0, (self.seconds, 8)).mean(1)
        found = {"audio": torch.stack(heard).numpy(), "visual": visual.numpy()}
        if self.motion is not None:
            images = [self.small(Image.open(file).convert("RGB")) for file in chosen]
            clips = torch.stack(images).unflatten(0, (self.seconds, 8)).transpose(1, 2)
            found["motion"] = torch.stack([self.motion(clip[None])[0] for clip in clips]).numpy()
        return found


def write_frames(video: Path, folder: Path) -> None:
    """Write frames at 8 a second as `ffmpeg -r 8 %04d.jpg` does."""
    with av.open(str(video)) as container:
        graph = av.filter.Graph()
        source = graph.add_buffer(template=container.streams.video[0])
        rate, sink = graph.add("fps", "fps=8"), graph.add("buffersink")
        source.link_to(rate)
        rate.link_to(sink)
        graph.configure()
        count = 0
        for frame in [*container.decode(video=0), None]:
            graph.push(frame)
            while True:
                try:
                    graph.pull().to_image().save(folder / f"{count:04d}.jpg", quality=95)
                except (av.error.BlockingIOError, av.error.EOFError):
                    break
                count += 1


def write_sound(video: Path, file: Path) -> None:
    """Write the sound as a wav file at 16 kHz, mono."""
    with av.open(str(video)) as container, wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(mel.RATE)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=mel.RATE)
        for frame in [*container.decode(audio=0), None]:
            for block in resampler.resample(frame):
                out.writeframes(block.to_ndarray().tobytes())


def make_video(path: Path, seconds: int = SECONDS) -> Path:
    """Make moving noise of 320 x 240 at 30 frames per second with a tone; return its file.

    Every other second is dark and soft, so that features of another second differ by more than
    `TOLERANCE`.
    """
    generator = np.random.default_rng(0)
    texture = generator.integers(0, 256, (30, 80, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        video, audio = (
            container.add_stream("mpeg4", rate=30),
            container.add_stream("aac", rate=44100, layout="mono"),
        )
        video.width, video.height, video.pix_fmt, video.bit_rate = 320, 240, "yuv420p", 1_000_000
        for index in range(30 * seconds):
            dark = 8 if index // 30 % 2 else 1
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(texture[:, index : index + 320] // dark), format="rgb24"
            )
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = np.arange(44100 * seconds)
        loud = np.where(samples // 44100 % 2, 0.003, 0.3)
        tone = (loud * np.sin(samples * 0.1)).astype(np.float32)
        for start in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(
                tone[None, start : start + 1024], format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 44100, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


def make_weights(folder: Path, recipe: FeatureRecipe) -> dict[str, Path]:
    """Write random weights of all networks of a recipe."""
    torch.manual_seed(0)
    network = VGGish()
    for place in range(len(CONVOLUTIONS)):
        torch.nn.init.kaiming_normal_(
            [m for m in network.features if isinstance(m, torch.nn.Conv2d)][place].weight
        )
    made = {"vggish": network, "visual": timm.create_model(recipe.visual.partition(":")[2])}
    if recipe.motion:
        made["motion"] = r2plus1d_18(weights=None)
    for name, module in made.items():
        save_file(module.state_dict(), folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in made}


def read(file: Path) -> dict[str, torch.Tensor]:
    """Read weights."""
    from safetensors.torch import load_file

    return load_file(file)


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference as a share of the largest value."""
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-12))
