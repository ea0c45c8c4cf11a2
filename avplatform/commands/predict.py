"""`avplatform predict`: parse videos into event timelines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from avplatform.base.console import Console, named, readable
from avplatform.base.places import Remote, StoppedError, identity, located, stopping
from avplatform.commands.embed_labels import EmbedLabelsOptions, label_texts
from avplatform.commands.flags import from_options, parse_flags, writing
from avplatform.labels.assumed import Assumed
from avplatform.models.checks import MAY_BE_URL, at_least
from avplatform.models.errors import AVError, UsageError, counted, one_line
from avplatform.models.paths import expanded
from avplatform.scale.child import Answer, out_of_memory
from avplatform.scale.options import EngineOptions, check_engine

if TYPE_CHECKING:
    from avplatform.scale.child import Work
    from avplatform.scale.notes import Notes
    from avplatform.timeline.folders import Job, Writer
    from avplatform.timeline.pipeline import Pipeline


@dataclass(kw_only=True)
class PredictOptions(EngineOptions):
    """Find the events of videos; each video gets a folder with JSON, CSV, ELAN, WebVTT, PNG, HTML.

    Videos that cannot be read are listed with the reason, and the exit code is then 1.
    """

    videos: Annotated[tuple[str, ...], tyro.conf.Positional, MAY_BE_URL]
    """video or audio files, or folders of them; or URLs of them, such as s3://BUCKET/FOLDER"""
    model: str
    """run folder, model folder, hub id or FILE.onnx; training-free: CLIP and CLAP, any --labels"""
    labels: str | None = None
    """texts to look for, separated by commas, not the model's own classes (LEAP, training-free)"""
    labels_file: str | None = None
    """file with one text per line, for texts that contain commas"""
    embeddings: str | None = None
    """source of the labels' embeddings; default: the source used in training"""
    out: Annotated[str, MAY_BE_URL] = "predictions"
    """folder to write, or its URL; a stopped call goes on, files of a finished one are replaced"""
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
    from avplatform.scale.notes import Notes
    from avplatform.timeline.folders import Job, Writer, write_summary, written_folders

    console, out = Console(), located(options.out)
    videos, failed = find_videos(options.videos)
    parse = None if options.engine else open_here(options)
    make_folder(out)
    notes = Notes(folder=out / ".done", made_by=made_by(options))
    answers: dict[str, Answer] = {}
    with console.bar("predict", total=len(videos)) as bar, stopping():

        def told(key: str, answer: Answer) -> None:
            answers[key] = answer
            for line in json.loads(answer.text)["lines"] if answer.status == "done" else ():
                console.note(line)
            bar.advance()

        jobs = [
            Job(key=notes.key(identity(video), name), video=video, folder=name)
            for video, name in videos
        ]
        known = notes.known()
        forget_others(notes, known, jobs)
        there = written_folders(out) if known else set()  # others were removed since
        for job in jobs:
            if job.key in known and job.folder in there and (text := notes.read(job.key)):
                told(job.key, Answer(status="done", text=text))
        todo = [job for job in jobs if job.key not in answers]
        if parse is None:
            predict_on_nodes(options, todo, out, notes, told)
        else:
            predict_here(Writer(parse, out, embed_video=options.embed_video), todo, notes, told)
        done = [
            json.loads(answers[job.key].text)["entry"]
            for job in jobs
            if answers[job.key].status == "done"
        ]
        failed += [
            (str(job.video), readable(answers[job.key].text))
            for job in jobs
            if answers[job.key].status == "bad"
        ]
        write_summary(out, done, failed)
        notes.remove()
    for name, reason in failed:
        console.note(f"not done: {named(readable(name), reason)}")
    console.note(f"{counted(len(done), 'video')} done, {len(failed)} not; the results are in {out}")
    return 1 if failed else 0


def forget_others(notes: Notes, known: set[str], jobs: Sequence[Job]) -> None:
    """Remove what is noted of these jobs' folders with other options, as their files will go."""
    folders = {job.folder for job in jobs}
    for key in known.difference(job.key for job in jobs):
        try:
            folder = json.loads(notes.read(key) or "")["entry"]["folder"]
        except (KeyError, TypeError, ValueError):  # what cannot be read is of no use
            folder = None
        if folder is None or folder in folders:
            notes.forget(key)


def predict_here(
    writer: Writer, jobs: Sequence[Job], notes: Notes, told: Callable[[str, Answer], None]
) -> None:
    """Parse videos in this process, note those that are done, and tell of each by its key."""
    for job, found in writer.each(jobs):
        if isinstance(found, str):
            notes.write(job.key, found)
            told(job.key, Answer(status="done", text=found))
        else:
            told(job.key, Answer(status="bad", text=_reason(found)))


def _reason(error: Exception) -> str:
    """Return why a video is not done; raise an error that says nothing about it."""
    if isinstance(error, StoppedError):
        raise error
    if isinstance(error, AVError):
        return str(error)
    text = one_line(error, 300, named=True)
    return f"it needs more memory than there is ({text})" if out_of_memory(error) else text


def predict_on_nodes(
    options: PredictOptions,
    jobs: Sequence[Job],
    out: Path | Remote,
    notes: Notes,
    told: Callable[[str, Answer], None],
) -> None:
    """Let the nodes of a cluster parse videos and note them; tell of each by its key."""
    from avplatform.scale.engine import share

    items = [{"key": job.key, "name": str(job.video), "job": job} for job in jobs]
    maker = PredictMaker(options=options, out=out, notes=notes)
    share(maker, items, options, told=told, cpu=options.cpu)


def make_folder(out: Path | Remote) -> None:
    """Make the folder to write; an object store needs none.

    Raises:
        DataError: that is impossible.
    """
    if isinstance(out, Remote):
        return
    with writing(f"cannot make the folder {out}", "; give another --out"):
        out.mkdir(parents=True, exist_ok=True)


def open_here(options: PredictOptions) -> Pipeline:
    """Open the pipeline for this process, with its threads."""
    from avplatform.base.machine import set_threads

    set_threads(options.threads)
    return open_pipeline(options)


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


def made_by(options: PredictOptions) -> list[Any]:
    """Return what the results depend on, but for the videos."""
    named = {name: value for name, value in vars(options).items() if name not in NOT_THE_RESULT}
    return [named, _files_read(options)]


def _files_read(options: PredictOptions) -> list[Any]:
    """Return what tells the weights and the labels that the options name from earlier ones."""
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
    out: Path | Remote
    notes: Notes

    def __call__(self) -> Work:
        """Return what parses a video and writes its files."""
        from avplatform.base.machine import set_threads
        from avplatform.scale.child import check_shared
        from avplatform.timeline.folders import Writer

        if isinstance(self.out, Path):
            check_shared(self.out)
        set_threads(self.options.worker_cpus)
        writer = Writer(open_pipeline(self.options), self.out, embed_video=self.options.embed_video)

        def work(item: dict[str, Any]) -> str:
            [(_, found)] = writer.each([item["job"]])
            if isinstance(found, Exception):
                raise found
            return found

        return self.notes.taking(work)


def find_videos(
    given: Sequence[str],
) -> tuple[list[tuple[Path | Remote, str]], list[tuple[str, str]]]:
    """Return the files with unique names of their output folders, and what is missing with reasons.

    A file that is given twice is parsed once. Files of the same name get "-2", "-3" and so on, in
    the order given. In a folder, texts, stills and the sound of a video beside it are skipped, as
    `avplatform extract` does; a file that is given by name never is.
    """
    from avplatform.features.sources import media_among

    files: list[Path | Remote] = []
    failed = []
    for text in given:
        place = located(text)
        if _is_file(place):
            files.append(place)
        elif _is_folder(place):
            try:
                inside = media_among(_inside(place))
            except OSError as error:
                failed.append((text, f"cannot read the folder: {error.strerror}"))
                continue
            if not inside:
                failed.append((text, "the folder holds no video or sound file"))
            files += inside
        else:
            failed.append((text, "there is no such file"))
    jobs: dict[Path | Remote, tuple[Path | Remote, str]] = {}
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


# Unlike those of Path, the functions of os.path accept names that no file can have.
def _is_file(place: Path | Remote) -> bool:
    return place.is_file() if isinstance(place, Remote) else os.path.isfile(place)


def _is_folder(place: Path | Remote) -> bool:
    return place.is_dir() if isinstance(place, Remote) else os.path.isdir(place)


def _inside(folder: Path | Remote) -> list[Path | Remote]:
    """Return the files that lie directly in a folder."""
    if isinstance(folder, Remote):
        return list(folder.iterdir())
    return [*sorted(file for file in folder.iterdir() if file.is_file())]


def open_labels(options: PredictOptions) -> list[str] | None:
    """Return the texts to look for, or None for the model's own classes."""
    if options.labels is None and options.labels_file is None:
        return None
    if bool(options.labels) == bool(options.labels_file):
        raise UsageError(
            'give the labels once: --labels "siren,dog barking", or --labels-file FILE'
        )
    return label_texts(EmbedLabelsOptions(labels=options.labels or "", texts=options.labels_file))
