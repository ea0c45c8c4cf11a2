"""Compose clips: `python -m examples.real_media.compose --cache CACHE --out CLIPS`.

The clips are 10 s long and their events are known. Writes SPLIT_NUMBER.mp4 (H.264 320x240, 8 frames
per second; AAC 44.1 kHz mono), plan.json (what is heard and seen, and when) and events.csv (the
same as a table). The same seed gives the same clips; files that are already there are kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from avplatform.base.console import Console
from avplatform.models.errors import AVError, DataError, UsageError, counted
from avplatform.models.files import write_atomic
from examples.real_media.material import RATE, read_material
from examples.real_media.plan import Plan, make_plan
from examples.real_media.render import FPS, HEIGHT, WIDTH, render_frames, render_sound
from examples.real_media.sources import CLASSES, SPLITS

PLAN_FILE, TABLE_FILE = "plan.json", "events.csv"
SIZES = {"train": 180, "validation": 30, "test": 60}


def compose(cache: Path, out: Path, *, sizes: dict[str, int], seed: int, console: Console) -> Plan:
    """Write the clips that are not there yet.

    Raises:
        UsageError: the folder holds clips of another plan.
        DataError: a source that is missing, or a disk that is full.
    """
    heard = [name for name, sources in CLASSES.items() if sources.sounds]
    seen = [name for name, sources in CLASSES.items() if sources.photos]
    plan = make_plan(sizes, heard=heard, seen=seen, seed=seed)
    file = out / PLAN_FILE
    if file.is_file() and file.read_text(encoding="utf-8") != plan.to_json():
        raise UsageError(
            f"{out} holds clips of another seed or number; give another --out, or delete it"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(file, plan.to_json())
        write_atomic(out / TABLE_FILE, event_table(plan))
        made = 0
        with console.bar("compose", total=len(plan.clips)) as bar:
            for split in sizes:
                clips = [clip for clip in plan.clips if clip.split == split]
                missing = [clip for clip in clips if not clip_file(out, clip.name).is_file()]
                bar.advance(len(clips) - len(missing))
                material = read_material(cache, split) if missing else None
                for clip in missing:
                    assert material is not None
                    sound, frames = (
                        render_sound(clip, material, seed),
                        render_frames(clip, material, seed),
                    )
                    write_clip(clip_file(out, clip.name), frames, sound)
                    made += 1
                    bar.advance()
    except OSError as error:
        raise DataError(
            f"cannot write {out}: {error.strerror or error}; run it again, it goes on"
        ) from None
    console.note(f"{counted(made, 'clip')} composed now, {len(plan.clips) - made} before, in {out}")
    return plan


def write_clip(
    file: Path, frames: Iterable[np.ndarray], sound: np.ndarray, *, rate: int = RATE, fps: int = FPS
) -> None:
    """Write pictures and sound as an mp4 file, the same bytes for the same content.

    Shape: frames [240, 320, 3] uint8; sound [samples] float32 in [-1, 1].
    """
    write_atomic(file, lambda path: _encode(path, frames, sound, rate, fps))


def _encode(
    path: Path, frames: Iterable[np.ndarray], sound: np.ndarray, rate: int, fps: int
) -> None:
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        options = {"preset": "superfast", "crf": "23", "threads": "1"}
        video = container.add_stream(
            "libx264", rate=fps, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p", options=options
        )
        audio = container.add_stream("aac", rate=rate, layout="mono", bit_rate=96_000)
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for at in range(0, len(sound), 1024):
            piece = av.AudioFrame.from_ndarray(
                sound[None, at : at + 1024].astype(np.float32), format="fltp", layout="mono"
            )
            piece.sample_rate, piece.pts, piece.time_base = rate, at, Fraction(1, rate)
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))


def clip_file(folder: Path, name: str) -> Path:
    """Return the file of a clip."""
    return folder / f"{name}.mp4"


def event_table(plan: Plan) -> str:
    """Return all events as tab-separated text.

    The columns are those of LLP's dense annotations, and the stream.
    """
    lines = ["filename\tonset\toffset\tevent_labels\tstream"]
    lines += [
        f"{c.name}\t{e.onset}\t{e.offset}\t{e.label}\t{e.stream}"
        for c in plan.clips
        for e in c.events
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Compose by the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder that examples.real_media.fetch filled"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the clips, outside the repository"
    )
    parser.add_argument("--seed", type=int, default=1)
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=int, default=SIZES[split], help=f"clips of {split}")
    args = parser.parse_args()
    try:
        sizes = {split: getattr(args, split) for split in SPLITS}
        compose(args.cache, args.out, sizes=sizes, seed=args.seed, console=Console())
    except AVError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
