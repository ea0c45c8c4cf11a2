"""Splits by video, with the classes in proportion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from random import Random

from avplatform.data.store.schema import SPLITS
from avplatform.models.errors import UsageError

DEFAULT_SHARES = "0.8,0.1,0.1"
ORDERS, WORK = 100, 20_000
"""Orders of the videos that are tried until no split lacks a class; fewer where so many videos
are divided in all of them together."""


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
    fixed, and a split with a share gets at least one video if there are enough. With few videos,
    other orders are tried until every split has a clip of every class, and the one that comes
    nearest to this is taken.

    Args:
        videos: the classes of each video.
        shares: the share of each split; they add up to 1.
        seed: seed of the order among equals.
        fixed: the splits of videos that keep theirs; the others fill up what these leave.
    """
    kept = {name: split for name, split in (fixed or {}).items() if name in videos}
    names, random = sorted(set(videos) - set(kept)), Random(seed)
    best: tuple[int, dict[str, str]] | None = None
    for _ in range(min(ORDERS, max(1, WORK // max(1, len(names))))):
        random.shuffle(names)
        found = _divided(names, videos, shares, kept)
        lacking = _lacking(found, videos, shares)
        if best is None or lacking < best[0]:
            best = lacking, found
        if not lacking:
            break
    assert best is not None
    return best[1]


def _lacking(
    found: Mapping[str, str], videos: Mapping[str, Collection[str]], shares: Mapping[str, float]
) -> int:
    """Count the classes that lack a split although they have a video for each."""
    used = [split for split in shares if split in found.values()]
    where: dict[str, list[str]] = {}
    for name, split in found.items():
        for label in videos[name]:
            where.setdefault(label, []).append(split)
    return sum(
        len(used) - len(set(splits)) for splits in where.values() if len(splits) >= len(used)
    )


def _divided(
    names: Sequence[str],
    videos: Mapping[str, Collection[str]],
    shares: Mapping[str, float],
    kept: Mapping[str, str],
) -> dict[str, str]:
    """Return the split of each video, of which some are kept; `names` is the order of the rest."""
    out, taken = dict(kept), Counter(kept.values())
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
