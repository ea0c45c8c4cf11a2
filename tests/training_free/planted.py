"""CLIP and CLAP that see red and blue, hear low and high tones, and read two labels."""

from types import SimpleNamespace

import numpy as np
import torch

from avplatform.features.sampling import SAMPLE_RATE
from avplatform.features.teachers import TextFeatures
from tests.features.clips import RATE, render

LABELS = ("dog barking", "siren")
NOTHING, WIDTH = 2, 8


def vector(kind):
    """A direction near to that of all others, as of pictures and sounds in real spaces."""
    made = np.full(WIDTH, 0.2, np.float32)
    made[kind] += 1
    return made


class Planted:
    """A teacher whose embeddings are known: `kinds` tells what a segment shows."""

    scale, revision = 100.0, None

    def __init__(self, name="planted", *, device="cpu"):
        self.name, self.device = name, torch.device(device)
        self.model = torch.nn.Linear(2, 2)
        torch.nn.init.ones_(self.model.weight), torch.nn.init.zeros_(self.model.bias)
        self.model.config = SimpleNamespace(projection_dim=WIDTH)

    def text_features(self, texts):
        kinds = [next((n for n, x in enumerate(LABELS) if x in text), NOTHING) for text in texts]
        return TextFeatures(vectors=np.stack([vector(kind) for kind in kinds]), scale=self.scale)

    def segment_features(self, content):
        return np.stack([vector(self.kind(one)) for one in content])


class PlantedCLIP(Planted):
    input_size = 16

    def kind(self, picture):
        red, _, blue = picture.mean(axis=(1, 2))
        return 0 if red > blue + 0.3 else 1 if blue > red + 0.3 else NOTHING


class PlantedCLAP(Planted):
    input_size = 0

    def kind(self, samples):
        power = np.abs(np.fft.rfft(samples)) ** 2
        hertz = power.argmax() * SAMPLE_RATE / len(samples)
        clear = power.max() > 0.3 * power.sum()
        return (0 if hertz < 700 else 1) if clear and hertz > 200 else NOTHING


SEEN = {"dog barking": [(2, 5)], "siren": [(7, 9)]}
HEARD = {"dog barking": [(3, 6)], "siren": [(0, 1), (7, 9)]}
BOTH = {"dog barking": [(3, 5)], "siren": [(7, 9)]}
SECONDS = 12


def on(spans, label, time):
    return any(start <= time < end for start, end in spans[label])


def video(path, *, fps=10):
    """Render what SEEN and HEARD say: red and blue pictures, tones of 440 and 1500 Hz."""
    colours = {"dog barking": (220, 20, 20), "siren": (20, 20, 220)}
    pictures = []
    for index in range(SECONDS * fps):
        shown = [c for label, c in colours.items() if on(SEEN, label, index / fps)]
        pictures.append(np.full((64, 64, 3), shown[0] if shown else (90, 90, 90), np.uint8))
    time = np.arange(SECONDS * RATE) / RATE
    sound = np.zeros(len(time), np.float32)
    for label, hertz in (("dog barking", 440), ("siren", 1500)):
        for start, end in HEARD[label]:
            held = (time >= start) & (time < end)
            sound[held] += 0.5 * np.sin(2 * np.pi * hertz * time[held])
    return render(path, pictures=pictures, fps=fps, sound=sound)
