"""`avplatform predict`: parse videos into event timelines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from avplatform.base.console import Console, named, readable
from avplatform.commands.embed_labels import EmbedLabelsOptions, label_texts
from avplatform.commands.flags import from_options, parse_flags, writing
from avplatform.labels.assumed import Assumed
from avplatform.models.checks import at_least
from avplatform.models.errors import AVError, DataError, UsageError, counted
from avplatform.models.paths import expanded
from avplatform.scale.options import EngineOptions, check_engine
from avplatform.timeline.event import NEVER_TRAINED

if TYPE_CHECKING:
    from avplatform.scale.child import Work
    from avplatform.scale.notes import Notes
    from avplatform.timeline.pipeline import Pipeline
    from avplatform.timeline.several import Several
    from avplatform.timeline.timeline import Timeline

FILES = ("events.json", "events.csv", "events.eaf", "events.vtt", "timeline.png", "timeline.html")


@dataclass(kw_only=True)
class PredictOptions(EngineOptions):
    """Find the events of videos; each video gets a folder with JSON, CSV, ELAN, WebVTT, PNG, HTML.

    Videos that cannot be read are listed with the reason, and the exit code is then 1.
    """

    videos: Annotated[tuple[str, ...], tyro.conf.Positional]
    """video or audio files, or folders of them"""
    model: str
    """run folder, model folder, hub id or FILE.onnx; training-free: CLIP and CLAP, any --labels"""
    labels: str | None = None
    """texts to look for, separated by commas, not the model's own classes (LEAP, training-free)"""
    labels_file: str | None = None
    """file with one text per line, for texts that contain commas"""
    embeddings: str | None = None
    """source of the labels' embeddings; default: the source used in training"""
    out: str = "predictions"
    """folder to write; files of an earlier call are replaced"""
    recipe: str | None = None
    """features that the model reads (llp, ave, lite, clip-clap); default: what its config says"""
    weights: tuple[str, ...] = ()
    """weights of the feature extractors: auto (fetch what is missing), NAME=FILE, or a folder"""
    window: int | None = None
    """seconds that the model sees at once; default: the length of its training clips"""
    hop: int | None = None
    """seconds from one window to the next; default: half the length of its training clips"""
    threshold: float | None = None
    """lowest probability at which a class is detected (avvp); default: the model's own"""
    unseen: Assumed | None = None
    """labels never trained on: as rare as others (training, default), present, plain (no bank)"""
    embed_video: bool = False
    """put the video into the page itself; default: the page refers to it by its relative path"""
    max_seconds: float = 3600.0
    """refuse longer files"""
    max_pixels: int = 7680 * 4320
    """refuse larger frames"""
    max_gigapixels: float = 1000.0
    """refuse files of more billions of pixels, which bounds the time too; an hour of 4K has 900"""
    runtime: Literal["torch", "onnx"] = "torch"
    """what runs the network: torch, or onnxruntime on the CPU; a FILE.onnx always runs there"""
    cpu: bool = False
    """stay on the CPU"""
    threads: int = 0
    """CPU threads; 0: one per core of this machine"""


def run(args: list[str], prog: str) -> int:
    """Predict as the flags say."""
    options = parse_flags(PredictOptions, args, prog, config=(tyro.conf.FlagCreatePairsOff,))
    at_least(options, "threads", 0)
    if not options.videos:
        raise UsageError("there is no video; give at least one file or folder")
    check_engine(options)
    console = Console()
    jobs, failed = find_videos(options.videos)
    out = expanded(options.out)
    done: list[dict[str, Any]] = []
    with console.bar("predict", total=len(jobs)) as bar:
        source = predict_on_nodes if options.engine else predict_here
        for video, found in source(options, jobs, out, bar.advance):
            if isinstance(found, str):
                failed.append((str(video), found))
                continue
            done.append(found["entry"])
            for line in found["lines"]:
                console.note(line)
    write_summary(out, done, failed)
    for name, reason in failed:
        console.note(f"not done: {named(readable(name), reason)}")
    console.note(f"{counted(len(done), 'video')} done, {len(failed)} not; the results are in {out}")
    return 1 if failed else 0


Found = tuple[Path, dict[str, Any] | str]
"""A video with its entry of the summary and the lines to show, or why it has none."""


def predict_here(
    options: PredictOptions,
    jobs: Sequence[tuple[Path, str]],
    out: Path,
    advance: Callable[[], None],
) -> Iterator[Found]:
    """Yield what was found in each video, in order."""
    from avplatform.base.machine import set_threads
    from avplatform.timeline.several import Several

    set_threads(options.threads)
    timelines = Several(open_pipeline(options), [video for video, _ in jobs])
    make_folder(out)
    for video, name in jobs:
        try:
            found: dict[str, Any] | str = predict_one(timelines, video, out, name, options)
        except DataError as error:
            found = str(error)
        yield video, found
        advance()


def make_folder(out: Path) -> None:
    """Make the folder to write.

    Raises:
        DataError: that is impossible.
    """
    with writing(f"cannot make the folder {out}", "; give another --out"):
        out.mkdir(parents=True, exist_ok=True)


def open_pipeline(options: PredictOptions) -> Pipeline:
    """Return the pipeline that the options describe."""
    from avplatform.features.weights import parse_weights
    from avplatform.timeline.pipeline import PipelineConfig, pipeline

    return pipeline(
        options.model,
        labels=open_labels(options),
        embeddings=options.embeddings,
        recipe=options.recipe,
        weights=parse_weights(options.weights),
        config=from_options(PipelineConfig, options),
    )


def predict_one(
    timelines: Several, video: Path, out: Path, name: str, options: PredictOptions
) -> dict[str, Any]:
    """Write the files of the next video, and return its entry and the lines to show.

    Raises:
        DataError: it cannot be done, for whatever reason: one video must not stop the others.
    """
    try:
        timeline = predict_next(timelines, video, out / name, embed=options.embed_video)
    except AVError as error:
        raise DataError(readable(str(error))) from None
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise DataError(f"{type(error).__name__}: {text}") from None
    entry = {"video": readable(video), "folder": name, "events": len(timeline.events)}
    entry |= {"never_trained_on": timeline.never_trained_on, "notes": timeline.notes}
    lines = [line_about(timeline, out / name / "timeline.html")]
    if timeline.notes and not timeline.events:
        lines.append(f"  {timeline.notes[-1]}")
    return {"entry": entry, "lines": lines}


def predict_on_nodes(
    options: PredictOptions,
    jobs: Sequence[tuple[Path, str]],
    out: Path,
    advance: Callable[[], None],
) -> Iterator[Found]:
    """Yield what the nodes of a cluster found in each video; done ones are noted in OUT/.done."""
    from avplatform.base.places import identity
    from avplatform.scale.engine import share
    from avplatform.scale.notes import Notes

    make_folder(out)
    made_by: dict[str, Any] = {
        name: value for name, value in vars(options).items() if name not in NOT_THE_RESULT
    }
    notes = Notes(folder=out.absolute() / ".done", made_by=[made_by, _files_read(options)])
    items = [
        {"key": notes.key(identity(video), name), "name": str(video), "folder": name}
        for video, name in jobs
    ]
    known = {
        item["key"]: notes.read(item["key"])
        if (out / item["folder"] / "events.json").is_file()  # else its folder was removed
        else None
        for item in items
    }
    todo = [item for item in items if known[item["key"]] is None]
    for _ in range(len(items) - len(todo)):
        advance()
    maker = PredictMaker(options=options, out=out, notes=notes)
    answers = share(maker, todo, options, told=lambda *_: advance())
    for (video, _), item in zip(jobs, items, strict=True):
        answer = answers.get(item["key"])
        if answer is not None and answer.status == "bad":
            yield video, answer.text
        else:
            yield video, json.loads(known[item["key"]] or answers[item["key"]].text)
    notes.remove()


def _files_read(options: PredictOptions) -> list[Any]:
    """Return what tells the weights and the labels that the options name from earlier ones."""
    from avplatform.base.places import identity
    from avplatform.features.weights import parse_weights

    given = [options.model, options.labels_file, options.embeddings]
    given += parse_weights(options.weights).values()
    files: list[Path] = []
    for path in (expanded(place) for place in given if place):
        files += (file for file in path.rglob("*") if file.suffix in WEIGHTS)
        files += [path] if path.is_file() else []
    return [identity(file) for file in sorted(files)]


WEIGHTS = {".safetensors", ".pth", ".onnx"}
"""Suffixes of files of weights in a folder."""
NOT_THE_RESULT = {"videos", "out", *vars(EngineOptions()), "cpu", "threads"}
"""Options on which the result does not depend."""


@dataclass(kw_only=True)
class PredictMaker:
    """Opens the pipeline in a child process of a node."""

    options: PredictOptions
    out: Path
    notes: Notes

    def __call__(self) -> Work:
        """Return what parses a video and writes its files."""
        from avplatform.base.machine import set_threads
        from avplatform.scale.child import check_shared
        from avplatform.timeline.several import Several

        check_shared(self.out)
        set_threads(self.options.worker_cpus)
        parse = open_pipeline(self.options)

        def work(item: dict[str, Any]) -> str:
            video = Path(item["name"])
            timelines = Several(parse, [video])
            return json.dumps(predict_one(timelines, video, self.out, item["folder"], self.options))

        return self.notes.taking(work)


def predict_next(timelines: Several, video: Path, folder: Path, *, embed: bool = False) -> Timeline:
    """Take the timeline of the next video, and write its files into a folder.

    Raises:
        DataError: the video cannot be read, or the files cannot be written.
        UsageError: the video is too large to embed.
    """
    from avplatform.features.media import probe
    from avplatform.timeline.preview import preview

    timeline, limits = next(timelines), timelines.pipeline.config.limits
    info = timelines.info or probe(video, limits=limits)
    shown = preview(video, info, limits)
    timeline.save(f"{folder}/", video=video, preview=shown, embed_video=embed)
    return timeline


def find_videos(given: Sequence[str]) -> tuple[list[tuple[Path, str]], list[tuple[str, str]]]:
    """Return the files with unique names of their output folders, and what is missing with reasons.

    A file that is given twice is parsed once. Files of the same name get "-2", "-3" and so on, in
    the order given. In a folder, texts, stills and the sound of a video beside it are skipped, as
    `avplatform extract` does; a file that is given by name never is.
    """
    from avplatform.features.sources import media_among

    files: list[Path] = []
    failed = []
    for text in given:
        path = expanded(text)
        if os.path.isdir(path):  # unlike Path.is_dir, this accepts names that no file can have
            try:
                inside = media_among(sorted(file for file in path.iterdir() if file.is_file()))
            except OSError as error:
                failed.append((text, f"cannot read the folder: {error.strerror}"))
                continue
            if not inside:
                failed.append((text, "the folder holds no video or sound file"))
            files += inside
        elif os.path.isfile(path):
            files.append(path)
        else:
            failed.append((text, "there is no such file"))
    jobs: dict[Path, tuple[Path, str]] = {}
    taken = {"summary.json"}
    for file in files:
        if file.resolve() in jobs:
            continue
        # Never a parent folder: the stem of "...mp4" is "..".
        stem, number = readable(file.stem).strip(". ") or "video", 1
        name = stem
        while name.lower() in taken:  # some file systems ignore upper and lower case
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        jobs[file.resolve()] = (file, name)
    return list(jobs.values()), failed


def open_labels(options: PredictOptions) -> list[str] | None:
    """Return the texts to look for, or None for the model's own classes."""
    if options.labels is None and options.labels_file is None:
        return None
    if bool(options.labels) == bool(options.labels_file):
        raise UsageError(
            'give the labels once: --labels "siren,dog barking", or --labels-file FILE'
        )
    return label_texts(EmbedLabelsOptions(labels=options.labels or "", texts=options.labels_file))


def line_about(timeline: Timeline, page: Path) -> str:
    """Return one line that says what was found in a video."""
    found = [event.stream for event in timeline.events]
    counts = [f"{stream} {found.count(stream)}" for stream in timeline.streams]
    kinds = {"sound": "has_audio", "pictures": "has_video"}
    lacks = [kind for kind, key in kinds.items() if timeline.about.get(key) is False]
    said = f"; the file has no {lacks[0]}" if lacks else ""
    if timeline.never_trained_on:
        said += f"; {NEVER_TRAINED}: {', '.join(timeline.never_trained_on)}"
    return (
        f"{timeline.video}: {counted(len(timeline.events), 'event')} "
        f"({', '.join(counts)}){said} -> {page}"
    )


def write_summary(out: Path, done: list[dict[str, Any]], failed: list[tuple[str, str]]) -> None:
    """Write summary.json: the videos that were done, with folders, and the others, with reasons.

    Videos of earlier calls stay in it while their folders are there.
    """
    from avplatform.base.files import write_json

    now = {entry["folder"] for entry in done}
    kept = [
        entry
        for entry in _earlier(out / "summary.json")
        if entry["folder"] not in now and (out / entry["folder"] / "events.json").is_file()
    ]
    content = {
        "done": [*kept, *done],
        "not_done": [{"video": readable(video), "reason": reason} for video, reason in failed],
    }
    with writing(f"cannot write {out / 'summary.json'}"):
        write_json(out / "summary.json", content)


def _earlier(file: Path) -> list[dict[str, Any]]:
    """Return the videos that an earlier summary.json lists as done."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["done"]
        return [entry for entry in entries if isinstance(entry["folder"], str)]
    except (OSError, ValueError, KeyError, TypeError):
        return []
