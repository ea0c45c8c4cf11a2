"""Time decoding and feature extraction against the usual pipeline: `python -m benchmarks.media`.

The usual pipeline writes 8 frames per second as .jpg files and the sound as a .wav file, reads them
again with PIL and `wave`, and runs the networks on one image after the other in float32. Ours
decodes to tensors and runs batches, in float32 and in bf16 with channels last. Both use the same
frames, and the same networks with the same random weights (the time does not depend on them); their
features are compared before anything is timed. All run in turn in one process and are measured by
its CPU time and by the clock. A figure is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

from avplatform.base.machine import cpu_has_bf16
from avplatform.features import mel
from avplatform.features.extractor import Extractor
from avplatform.features.recipe import FeatureRecipe
from avplatform.features.vggish import CONVOLUTIONS, VGGish

SECONDS = 10


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--video",
        help="a video; default: one that is made, 10 s of 320 x 240 at 30 frames a second",
    )
    parser.add_argument("--visual", default="tf_efficientnet_lite0", help="model of timm")
    parser.add_argument(
        "--clips", type=int, default=3, help="how often the video is taken in a round"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        video = Path(options.video) if options.video else make_video(folder / "made.mp4")
        weights = make_weights(folder, options.visual)
        recipe = FeatureRecipe(name="bench", audio="vggish", visual=f"timm:{options.visual}")
        plain = Plain(recipe, weights, folder / "frames")
        kinds = {
            "ours, float32": "float32",
            **({"ours, bf16": "bfloat16"} if cpu_has_bf16() else {}),
        }
        ours = {
            name: Extractor(recipe, weights, dtype=dtype, batch=16) for name, dtype in kinds.items()
        }
        videos = [video] * options.clips
        print(
            f"torch {torch.__version__}, PyAV {av.__version__}, {options.threads} thread(s), "
            f"{options.visual}, {video.name}"
        )
        theirs = plain.clip(video)
        for name, extractor in ours.items():
            found = extractor.clip(video)
            for stream in ("audio", "visual"):
                print(
                    f"{name}: {stream} differs by "
                    f"{difference(getattr(found, stream), theirs[stream]):.1%} of its size"
                )
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in ours}
        times: dict[str, list[float]] = {name: [] for name in ("usual", *ours)}
        for _ in range(options.rounds):
            base = timed(lambda: [plain.clip(path) for path in videos])
            times["usual"].append(base[1] / options.clips)
            for name, extractor in ours.items():
                taken = timed(lambda extractor=extractor: extractor.clips(videos))
                rows[name].append((base[0] / taken[0], base[1] / taken[1]))
                times[name].append(taken[1] / options.clips)
        print(
            "\n| pipeline | s a clip | ratio, CPU time | ratio, clock | goal | |\n"
            "|---|---|---|---|---|---|"
        )
        print(
            f"| usual: jpg, wav, batch 1, float32 | "
            f"{statistics.median(times['usual']):.2f} | | | | |"
        )
        for name, ratios in rows.items():
            cpu, clock = (statistics.median(pair[kind] for pair in ratios) for kind in (0, 1))
            low, high = min(pair[0] for pair in ratios), max(pair[0] for pair in ratios)
            verdict = "met" if cpu >= 2 else "not met"
            seconds = statistics.median(times[name])
            print(
                f"| {name} | {seconds:.2f} | x{cpu:.2f} ({low:.2f} to {high:.2f}) | "
                f"x{clock:.2f} | >= 2 | {verdict} |"
            )


class Plain:
    """The usual pipeline, with our networks in float32."""

    def __init__(self, recipe: FeatureRecipe, weights: dict[str, Path], frames: Path) -> None:
        self.frames = frames
        self.extractor = Extractor(replace(recipe, name="plain"), weights)
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
            files[i] for i in np.round(np.linspace(0, len(files) - 1, 8 * SECONDS)).astype(int)
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
            self.vggish(torch.from_numpy(patch[None]))[0] for patch in mel.patches(samples, SECONDS)
        ]
        visual = torch.stack(vectors).unflatten(0, (SECONDS, 8)).mean(1)
        return {"audio": torch.stack(heard).numpy(), "visual": visual.numpy()}


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


def make_video(path: Path) -> Path:
    """Ten seconds of moving noise with a tone."""
    generator = np.random.default_rng(0)
    texture = generator.integers(0, 256, (30, 80, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        video, audio = (
            container.add_stream("mpeg4", rate=30),
            container.add_stream("aac", rate=44100, layout="mono"),
        )
        video.width, video.height, video.pix_fmt, video.bit_rate = 320, 240, "yuv420p", 1_000_000
        for index in range(30 * SECONDS):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(texture[:, index : index + 320]), format="rgb24"
            )
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        tone = (0.3 * np.sin(np.arange(44100 * SECONDS) * 0.1)).astype(np.float32)
        for start in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(
                tone[None, start : start + 1024], format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 44100, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return path


def make_weights(folder: Path, visual: str) -> dict[str, Path]:
    """Random weights of both networks."""
    torch.manual_seed(0)
    network = VGGish()
    for place in range(len(CONVOLUTIONS)):
        torch.nn.init.kaiming_normal_(
            [m for m in network.features if isinstance(m, torch.nn.Conv2d)][place].weight
        )
    save_file(network.state_dict(), folder / "vggish.safetensors")
    save_file(timm.create_model(visual).state_dict(), folder / "visual.safetensors")
    return {"vggish": folder / "vggish.safetensors", "visual": folder / "visual.safetensors"}


def read(file: Path) -> dict[str, torch.Tensor]:
    """Read weights."""
    from safetensors.torch import load_file

    return load_file(file)


def difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference as a share of the largest value."""
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-12))


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Return the CPU seconds and the seconds of a call."""
    cpu, clock = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - clock


if __name__ == "__main__":
    main()
