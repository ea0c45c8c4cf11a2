"""A timeline as of a ten-second clip, and media files that the tests make themselves."""

from __future__ import annotations

import numpy as np

from avplatform.data.adapters.llp.classes import CLASSES
from avplatform.timeline.event import events_of
from avplatform.timeline.timeline import Timeline

LABELS = [name.replace("_", " ") for name in CLASSES]


def example(
    video="clip.mp4", seconds=10, *, attention=True, labels=LABELS, duration=None
) -> Timeline:
    """A dog, always seen, that barks twice; a man who speaks unseen; a car that is only seen."""
    generator = np.random.default_rng(7)
    spans = {
        "audio": {"Dog": [(0, 3), (6, 8)], "Speech": [(2, 9)]},
        "visual": {"Dog": [(0, 10)], "Car": [(4, 7)]},
    }
    found, scores = {}, {}
    for stream, events in spans.items():
        found[stream] = np.zeros((seconds, len(labels)), bool)
        for label, parts in events.items():
            for start, end in parts if label in labels else []:
                found[stream][start:end, labels.index(label)] = True
        noise = generator.uniform(0, 0.3, found[stream].shape)
        scores[stream] = np.where(found[stream], 1 - noise, noise)
    found["av"], scores["av"] = (
        found["audio"] & found["visual"],
        np.minimum(scores["audio"], scores["visual"]),
    )
    duration = float(seconds) if duration is None else duration
    weights = (
        {name: scores[name].T ** 2 + 0.01 for name in ("audio", "visual")} if attention else {}
    )
    return Timeline(
        video=video,
        duration=duration,
        model="runs/example",
        task="avvp",
        decoder="leap",
        labels=list(labels),
        events=events_of(found, scores, labels, duration=duration),
        scores=scores,
        found=found,
        attention={name: w / w.sum(axis=1, keepdims=True) for name, w in weights.items()},
        about={"has_audio": True, "has_video": True},
    )


def write_clip(
    file,
    *,
    seconds=6.0,
    fps=25,
    size=(96, 64),
    audio=True,
    video=True,
    codec="libvpx",
    sound="libopus",
    rate=48_000,
):
    """Write a clip whose picture is white in second 2 and whose sound beeps in second 4."""
    import av

    with av.open(str(file), "w") as out:
        pictures = out.add_stream(codec, rate=fps) if video else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = *size, "yuv420p"
        sounds = out.add_stream(sound, rate=rate, layout="mono") if audio else None
        if pictures is not None:
            for number in range(round(seconds * fps)):
                value = 255 if int(number / fps) == 2 else 40
                frame = av.VideoFrame.from_ndarray(
                    np.full((size[1], size[0], 3), value, np.uint8), format="rgb24"
                )
                out.mux(pictures.encode(frame))
            out.mux(pictures.encode())
        if sounds is not None:
            times = np.arange(round(seconds * rate)) / rate
            samples = (0.6 * np.sin(2 * np.pi * 880 * times) * (times.astype(int) == 4)).astype(
                np.float32
            )
            for start in range(0, len(samples), 960):
                part = samples[start : start + 960]
                frame = av.AudioFrame.from_ndarray(part[None], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = rate, start
                out.mux(sounds.encode(frame))
            out.mux(sounds.encode())
    return file
