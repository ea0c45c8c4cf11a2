"""Splits by video, with the classes in proportion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from random import Random

from avplatform.data.store.schema import SPLITS
from avplatform.models.errors import UsageError

DEFAULT_SHARES = "0.8,0.1,0.1"


def parse_shares(text: str) -> dict[str, float]:
    """Return the share of each split in "0.8,0.1,0.1": train, validation, test.

    Raises:
        UsageError: these are not two or three shares that add up to 1.
    """
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if len(shares) not in (2, 3) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise UsageError(
            f"--split is '{text}'; give the shares of train, validation and test, which add up to "
            f"1, such as {DEFAULT_SHARES}"
        )
    return dict(zip(SPLITS, shares, strict=False))


def split_videos(
    videos: Mapping[str, Collection[str]],
    shares: Mapping[str, float],
    *,
    seed: int = 0,
    fixed: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the split of each video; the same videos and seed give the same splits.

    The rarest class is distributed first, each of its videos to the split that lacks most of it.

    Source: iterative stratification (Sechidis et al., ECML PKDD 2011); the sizes of the splits are
    fixed, and a split with a share gets at least one video if there are enough.

    Args:
        videos: the classes of each video.
        shares: the share of each split; they add up to 1.
        seed: seed of the order among equals.
        fixed: the splits of videos that keep theirs; the others fill up what these leave.
    """
    out = {name: split for name, split in (fixed or {}).items() if name in videos}
    names = sorted(set(videos) - set(out))
    Random(seed).shuffle(names)
    taken = Counter(out.values())
    left = {s: max(0, size - taken[s]) for s, size in _sizes(len(videos), shares).items()}
    waiting: dict[str, int] = {}  # videos of each class that have no split yet
    for name in names:
        for label in videos[name]:
            waiting[label] = waiting.get(label, 0) + 1
    total = Counter(label for labels in videos.values() for label in labels)
    held = Counter((label, split) for name, split in out.items() for label in videos[name])
    lacking = {
        label: {split: share * total[label] - held[label, split] for split, share in shares.items()}
        for label in waiting
    }
    while len(out) < len(videos):
        rarest = min(((n, label) for label, n in waiting.items() if n), default=(0, ""))[1]
        for name in names:
            if name in out or (rarest and rarest not in videos[name]):
                continue
            wanted = lacking.get(rarest, {})
            split = max(
                (split for split in shares if left[split]),
                key=lambda s: (wanted.get(s, 0.0), left[s] / max(shares[s], 1e-9)),
            )
            out[name], left[split] = split, left[split] - 1
            for label in videos[name]:
                lacking[label][split] -= 1
                waiting[label] -= 1
    return out


def _sizes(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Return how many videos each split gets: rounded, and at least one where it has a share."""
    exact = {split: share * count for split, share in shares.items()}
    sizes = {split: int(value + 1e-9) for split, value in exact.items()}
    order = sorted(shares, key=lambda split: sizes[split] - exact[split])
    for split in order[: count - sum(sizes.values())]:
        sizes[split] += 1
    for split in shares:
        largest = max(sizes, key=lambda name: sizes[name])
        if shares[split] > 0 and not sizes[split] and sizes[largest] > 1:
            sizes[split], sizes[largest] = 1, sizes[largest] - 1
    return sizes
