"""Compare simulated audio features with real ones.

    python -m benchmarks.check_simulation AVE_ANNOTATIONS [LLP_STORE]

The real features are AVE's public file of VGGish vectors of 178 clips without events
(audio_feature_noisy.h5), so the comparison covers backgrounds only. Given a simulated LLP store, it
also prints how good the store's pseudo-labels are on the test split.
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np

from avplatform.data import open_data
from avplatform.data.adapters.ave.simulation import AVESimulation, AVESimulator, official_clips
from avplatform.tasks.avvp.metrics import averages, score


def statistics(x: np.ndarray) -> dict[str, float]:
    """Return zeros, autocorrelation, between-clip share and PCA spectrum of features [N, T, D]."""
    centred = x - x.mean(axis=(0, 1))
    variance = (centred**2).mean()
    out = {"zeros %": 100 * float((x == 0).mean())}
    for lag in (1, 2, 5, 9):
        out[f"lag {lag}"] = float((centred[:, lag:] * centred[:, :-lag]).mean() / variance)
    out["between clips %"] = 100 * float((centred.mean(axis=1) ** 2).mean() / variance)
    spectrum = np.linalg.svd(centred.reshape(-1, x.shape[-1]), compute_uv=False) ** 2
    share = np.cumsum(spectrum) / spectrum.sum()
    out.update({f"PCA {k}": float(share[k - 1]) for k in (1, 5, 10, 20, 64)})
    return out


def main() -> None:
    folder = Path(sys.argv[1])
    with h5py.File(folder / "audio_feature_noisy.h5") as file:
        real = np.asarray(file["avadataset"], dtype=np.float64)
    clips = official_clips(folder)
    simulator = AVESimulator(AVESimulation(), clips)
    indices = [int(i) for i in clips.splits["background"]]
    parts = [
        simulator.columns(clips, indices[i : i + 16])["audio"] for i in range(0, len(indices), 16)
    ]
    rows = {
        "real": statistics(real),
        "generated": statistics(np.concatenate(parts).astype(np.float64)),
    }
    names = list(rows["real"])
    print("| |", " | ".join(names), "|")
    print("|---" * (len(names) + 1) + "|")
    for name, values in rows.items():
        print(f"| {name} |", " | ".join(f"{values[n]:.2f}" for n in names), "|")
    if len(sys.argv) > 2:
        test = open_data(sys.argv[2], task="avvp").split("test")
        maps = [
            test.labels(f"{kind}_{m}") for kind in ("pseudo", "dense") for m in ("audio", "visual")
        ]
        found = averages(score(*maps))
        print("pseudo-labels on test:", " ".join(f"{v:.1f}" for v in found.values()))


if __name__ == "__main__":
    main()
