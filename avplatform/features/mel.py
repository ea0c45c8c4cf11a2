"""VGGish's front end: the log-mel spectrogram of AudioSet's release, one patch per second.

Source: Hershey et al., ICASSP 2017, and the release's parameters: 16 kHz, windows of 25 ms every
10 ms (periodic Hann), an FFT of 512, magnitudes, 64 bands from 125 to 7,500 Hz on the HTK scale,
log(x + 0.01), patches of 96 windows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

RATE = 16_000  # Hz
WINDOW, HOP, FFT = 400, 160, 512  # samples
BANDS, LOW, HIGH = 64, 125.0, 7500.0  # Hz
OFFSET = 0.01
PATCH = 96  # windows, 0.96 s
PATCH_HOP = 100  # windows: one patch per second, so that patch t belongs to segment t


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """Return the log-mel spectrogram of a waveform at 16 kHz.

    Shape: [samples] -> float32 [windows, 64], 1 + floor((samples - 400) / 160) windows.
    """
    samples = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float64))
    if len(samples) < WINDOW:
        return np.zeros((0, BANDS), np.float32)
    hann = torch.hann_window(WINDOW, periodic=True, dtype=torch.float64)
    windows = samples.unfold(0, WINDOW, HOP) * hann
    magnitudes = torch.fft.rfft(windows, n=FFT).abs()  # (windows, 257)
    return torch.log(magnitudes @ mel_filters() + OFFSET).float().numpy()


def mel_filters() -> Tensor:
    """Return the triangular filters of the mel bands; their sides are straight on the mel scale.

    Shape: float64 [257, 64]; bin 0 is in no band.
    """
    bins = _mel(torch.linspace(0, RATE / 2, FFT // 2 + 1, dtype=torch.float64))[:, None]
    edges = torch.linspace(float(_mel(LOW)), float(_mel(HIGH)), BANDS + 2, dtype=torch.float64)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    filters = torch.minimum(rising, falling).clamp_min(0)
    filters[0] = 0
    return filters


def patches(waveform: np.ndarray, segments: int) -> np.ndarray:
    """Return one log-mel patch per segment; a sound that ends earlier is padded with silence.

    Shape: [samples] -> float32 [T, 96, 64].

    Departs: the patches of the release start every 0.96 s; ours start every second, as in
    extractors of one vector per second, so that each patch belongs to one segment.
    """
    length = segments * RATE
    padded = np.zeros(length, np.float32)
    padded[: min(len(waveform), length)] = waveform[:length]
    spectrogram = log_mel(padded)
    starts = np.arange(segments) * PATCH_HOP
    return spectrogram[starts[:, None] + np.arange(PATCH)]


def _mel(hertz: Tensor | float) -> Tensor:
    return 1127.0 * torch.log(1 + torch.as_tensor(hertz, dtype=torch.float64) / 700.0)
