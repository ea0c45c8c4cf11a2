"""`avplatform extract`: extract segment features of video files into a store."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from avplatform.base.console import Console, named, readable
from avplatform.commands.choices import DEFAULT_DATASET, DatasetTask
from avplatform.commands.flags import from_options, parse_flags
from avplatform.data.adapters.table.options import EventOptions, check_events
from avplatform.models.checks import MAY_BE_URL
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.scale.options import EngineOptions, check_engine

if TYPE_CHECKING:
    from avplatform.features.earlier import EarlierStore

LISTED = 20  # bad files listed on the screen; the report lists all


@dataclass(kw_only=True)
class ExtractOptions(EventOptions, EngineOptions):
    """Extract segment features of videos into a data folder.

    Several processes share the files (`accelerate launch`), or the nodes of a cluster (--engine).
    """

    videos: Annotated[tuple[str, ...], tyro.conf.Positional, MAY_BE_URL]
    """video and audio files, or folders of them; or URLs of them, such as s3://BUCKET/FOLDER"""
    out: Annotated[str, MAY_BE_URL]
    """folder to write (or a new URL); a stopped one goes on, a finished one gets what changed"""
    prune: bool = False
    """in a finished folder: remove the clips of files that are not given again"""
    backbones: str = DEFAULT_DATASET.name
    """llp (VGGish, ResNet-152, R(2+1)D-18), ave (VGGish, VGG-19 maps), clip-clap, lite (no hub)"""
    audio: str | None = None
    """another audio backbone: vggish, vggish-pca, soundnet8, clap or clap:NAME"""
    visual: str | None = None
    """another visual backbone: timm:NAME, vgg19-pool5, clip or clip:NAME"""
    motion: str | None = None
    """another motion backbone: r2plus1d_18 or none"""
    weights: tuple[str, ...] = ()
    """auto (fetch what is missing), NAME=FILE (backbone, audio, visual, motion), or a folder"""
    task: DatasetTask = DEFAULT_DATASET.task
    """task whose classes the data folder gets"""
    annotations: str | None = None
    """folder of the official annotation files, which give labels and splits by file name"""
    split: str | None = None
    """split of all clips, or shares by video (see --events); default: test, events: 0.8,0.1,0.1"""
    segments: int = DEFAULT_DATASET.segments
    """segments per clip; a segment is a second, or as long as --segment says"""
    long: Literal["split", "first", "refuse"] | None = None
    """longer files (without annotations): split into clips (default), keep the first, or refuse"""
    name: str | None = None
    """name of the dataset; default: the folder's name"""
    dtype: Literal["float16", "float32"] = "float16"
    """stored precision"""
    precision: Literal["auto", "no", "bf16", "fp16"] = "no"
    """precision of the networks; bf16 is faster on hardware that has it"""
    batch: int = 32
    """images per batch"""
    max_seconds: float = 3600.0
    """refuse longer files"""
    max_pixels: int = 7680 * 4320
    """refuse larger frames"""
    max_gigapixels: float = 1000.0
    """refuse files of more billions of pixels, which bounds the time too; an hour of 4K has 900"""
    threads: int = 0
    """CPU threads per process; 0: cores divided by the number of processes on this machine"""
    cpu: bool = False
    """stay on the CPU"""


def run(args: list[str], prog: str) -> int:
    """Extract features; return 1 if a file was left out of the store."""
    options = parse_flags(ExtractOptions, args, prog)
    from avplatform.features.pyav import import_av
    from avplatform.features.recipe import get_recipe
    from avplatform.features.weights import parse_weights

    import_av()
    recipe = get_recipe(options.backbones)
    given = {"audio": options.audio, "visual": options.visual, "motion": options.motion}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value}
    if options.motion == "none":
        changes["motion"] = None
    if changes:
        recipe = replace(recipe, name="custom", **changes)
    weights = parse_weights(options.weights)
    check_events(options)
    check_engine(options)
    for name in ("split", "long", "events") if options.annotations else ():
        if getattr(options, name):
            raise UsageError(
                f"--{name} cannot be given with --annotations, which say the split and the labels "
                "of every file and make it one clip; leave it out"
            )
    if not options.events and options.split is not None and "," in options.split:
        raise UsageError("--split with shares is for listed events; give them with --events")
    try:
        return _extract(options, recipe, weights)
    except KeyboardInterrupt:
        print(
            "stopped; run the same command again to go on after the last finished file",
            file=sys.stderr,
        )
        return 130


def _extract(options: ExtractOptions, recipe: Any, weights: dict[str, str]) -> int:
    from avplatform.base.machine import leave, make_accelerator
    from avplatform.base.places import located
    from avplatform.base.processes import on_main
    from avplatform.data.store.card import render_dataset_card
    from avplatform.data.store.schema import EXTRACT_REPORT_FILE
    from avplatform.features.earlier import open_earlier
    from avplatform.features.extract import Extractor, extract
    from avplatform.features.extractor import weight_names
    from avplatform.features.fetch import ensure_weights
    from avplatform.features.media import Limits
    from avplatform.features.sources import find_files
    from avplatform.features.spread import spread_pieces
    from avplatform.features.weights import check_names

    absent = [given for given in options.videos if not located(given).exists()]
    if absent and options.events:  # else the table would be blamed for videos that it lists
        raise DataError(f"no file or folder {absent[0]}")
    found, out = find_files(options.videos), located(options.out)
    earlier = open_earlier(out)
    catalogue = _catalogue(options, list(found.files), earlier)
    accelerator = make_accelerator(
        cpu=options.cpu, precision=options.precision, threads=options.threads
    )
    names = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}
    dtype = names[str(accelerator.mixed_precision)]
    limits = from_options(Limits, options)
    console = Console(enabled=accelerator.is_main_process)
    check_names(weights, weight_names(recipe))
    on_main(accelerator, lambda: ensure_weights(recipe, weights, note=console.note))
    make = partial(
        Extractor,
        recipe,
        weights,
        dtype=dtype,
        batch=options.batch,
        limits=limits,
        segment_seconds=options.segment,
    )
    if found.ignored:
        console.note(
            f"{counted(found.ignored, 'file')} ignored: texts, stills, and sound or previews of a "
            "video of the same name"
        )
    share = -(-len(found.files) // accelerator.num_processes)
    with console.bar("extract", total=share) as bar:
        report = extract(
            found,
            out,
            make(device=accelerator.device),
            catalogue,
            segments=options.segments,
            long=options.long or "split",
            dtype=options.dtype,
            name=options.name or (out.name if earlier is None else earlier.manifest.spec.name),
            prune=options.prune,
            accelerator=accelerator,
            card=render_dataset_card,
            advance=bar.advance,
            spread=spread_pieces(make, options, accelerator, cpu=options.cpu)
            if options.engine
            else None,
        )
    leave(accelerator)
    if report.taken_up:
        console.note(f"{counted(report.taken_up, 'file')} had been extracted by an earlier attempt")
    for clips, stream in ((report.without_audio, "audio"), (report.without_video, "video")):
        if clips:
            console.note(
                f"{counted(len(clips), 'clip')} without {stream}, stored as zeros: "
                f"{readable(', '.join(clips[:LISTED]))}"
            )
    for file, why in report.bad[:LISTED]:
        console.note(readable(f"left out: {named(file, why)}"))
    if len(report.bad) > LISTED:
        console.note(f"and {len(report.bad) - LISTED} more")
    for line in _of_labels(report.labels):
        console.note(readable(line))
    counts = ", ".join(f"{split} {count}" for split, count in report.stored.items())
    if report.changes is not None:
        console.note(readable(f"into {options.out}: {report.changes.line()}"))
    console.note(
        f"wrote {options.out}: {counts}; {counted(len(report.bad), 'file')} of {report.files} left "
        f"out (see {EXTRACT_REPORT_FILE})"
    )
    return 1 if report.bad or report.labels.unknown else 0


def _catalogue(options: ExtractOptions, videos: list[str], earlier: EarlierStore | None) -> Any:
    """Return the labels of clips: official ones, listed events, or none.

    Videos of an earlier store keep their splits.
    """
    from avplatform.data.adapters.table.labels import EventLabels
    from avplatform.features.sources import Catalogue, EventCatalogue

    if not options.events:
        split = options.split or "test"
        return Catalogue(options.task, annotations=options.annotations, split=split)
    if earlier is not None and not options.prune:
        videos = [*(name for name in earlier.sources if name not in videos), *videos]
    return EventCatalogue(
        EventLabels(
            options,
            videos=videos,
            task=options.task,
            segments=options.segments,
            split=options.split,
            fixed=None if earlier is None else earlier.splits,
        )
    )


def _of_labels(found: Any) -> list[str]:
    """Return the lines that say what was odd in the lists of events."""
    from avplatform.data.adapters.official_files import defect_lines
    from avplatform.data.store.schema import EXTRACT_REPORT_FILE

    lines = [f"left out: {text}" for text in found.unknown[:LISTED]]
    if len(found.unknown) > LISTED:
        lines.append(f"and {len(found.unknown) - LISTED} more listed videos")
    return [*lines, *defect_lines(found.defects, EXTRACT_REPORT_FILE), *found.remarks]
