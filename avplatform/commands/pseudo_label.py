"""`avplatform pseudo-label`: make segment pseudo-labels, and score them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from avplatform.base.console import Console
from avplatform.base.places import located
from avplatform.commands import refine_labels
from avplatform.commands.flags import parse_flags
from avplatform.models.checks import MAY_BE_URL
from avplatform.models.errors import DataError, UsageError, counted
from avplatform.models.paths import expanded
from avplatform.scale.options import EngineOptions, check_engine

LISTED = 10  # clips listed on the screen; the files list all


@dataclass(kw_only=True)
class PseudoLabelOptions(EngineOptions):
    """Make segment pseudo-labels by VALOR's procedure, from one source for each wanted modality.

    `avplatform pseudo-label score DIR` scores labels against the dense annotations.
    `avplatform pseudo-label exchange|noise-ratio|drop|import` say which labels of a whole clip hold
    in which modality.
    """

    annotations: str
    """folder of the official annotation files"""
    out: Annotated[str, MAY_BE_URL]
    """folder to write, or its URL (s3://BUCKET/FOLDER); labelling that was stopped goes on"""
    splits: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
    """splits whose clips get labels"""
    visual_logits: Annotated[str | None, MAY_BE_URL] = None
    """folder of CLIP's logits or its URL, one .npy (10, 25) per video"""
    audio_logits: Annotated[str | None, MAY_BE_URL] = None
    """folder of CLAP's logits or its URL, one .npy (10, 25) per video"""
    visual_features: Annotated[str | None, MAY_BE_URL] = None
    """folder of CLIP's image features or its URL, one .npy (10, width) per video"""
    audio_features: Annotated[str | None, MAY_BE_URL] = None
    """folder of CLAP's audio features of the ten segments or its URL, one .npy (10, width) each"""
    frames: Annotated[str | None, MAY_BE_URL] = None
    """folder or URL of frames, 8 a second: ID/*.jpg, *.png; ID.npy (n, h, w, 3) uint8; runs CLIP"""
    waveforms: Annotated[str | None, MAY_BE_URL] = None
    """folder or URL of waveforms at 48 kHz: ID.wav, or ID.npy (samples); runs CLAP"""
    visual_texts: str | None = None
    """CLIP's text features (25, width), .npy or .safetensors; default: computed by --clip-model"""
    audio_texts: str | None = None
    """CLAP's text features (25, width), .npy or .safetensors; default: computed by --clap-model"""
    visual_scale: float | None = None
    """factor of CLIP's cosine, exp(logit scale); default: as in --visual-texts"""
    audio_scale: float | None = None
    """factor of CLAP's cosine, exp(audio logit scale); default: as in --audio-texts"""
    clip_model: str = "openai/clip-vit-large-patch14"
    """CLIP for frames and prompts: a hub id or a folder"""
    clap_model: str = "laion/clap-htsat-fused"
    """CLAP for waveforms and prompts: a hub id or a folder"""
    spelling: Literal["official", "corrected"] = "official"
    """spelling of the prompts; official keeps the errors of the published prompts"""
    visual_threshold_offset: float = 0.0
    """added to the visual thresholds of all classes"""
    audio_threshold_offset: float = 0.0
    """added to the audio thresholds of all classes"""
    save_logits: bool = False
    """also write the logits, so that other thresholds can be tried without the model"""
    strict: bool = False
    """write nothing if the input of any clip is bad"""
    cpu: bool = False
    """stay on the CPU"""


@dataclass(kw_only=True)
class ScoreOptions:
    """Score pseudo-labels against the dense annotations."""

    folder: Annotated[str, tyro.conf.Positional]
    """folder with CLIP/segment_pseudo_labels and CLAP/segment_pseudo_labels, or one of them"""
    annotations: str
    """folder of the official annotation files"""
    split: Literal["validation", "test"] = "test"
    """split to score"""
    visual: str | None = None
    """folder of visual labels, if it is elsewhere"""
    audio: str | None = None
    """folder of audio labels, if it is elsewhere"""
    json: str | None = None
    """write the figures to this file; without a name: print them as JSON, and nothing else"""
    strict: bool = False
    """refuse if a label file is missing or wrong"""


def run(args: list[str], prog: str) -> int:
    """Make pseudo-labels, or score them."""
    if args[:1] == ["score"]:
        return _score(args[1:], f"{prog} score")
    if args and args[0] in refine_labels.COMMANDS:
        return refine_labels.run(args, prog)
    options = parse_flags(PseudoLabelOptions, args, prog)
    from avplatform.pseudo_labels.dataset import DATASET
    from avplatform.pseudo_labels.make import FOLDERS, RECORD_FILE, Clips, make

    check_engine(options)
    chosen = _check(options)
    clips = Clips.of(DATASET.read(options.annotations), options.splits)
    console = Console()
    bad = 0
    for modality in chosen:
        source = _source(options, modality)
        with console.bar(f"label {modality}", total=len(clips.names)) as bar:
            entry = make(
                options.out,
                modality,
                source,
                clips,
                spelling=options.spelling,
                threshold_offset=getattr(options, f"{modality}_threshold_offset"),
                save_logits=options.save_logits,
                strict=options.strict,
                advance=bar.advance,
                spread=_spread(options, modality) if options.engine else None,
            )
        chosen_clips = set(clips.names)
        left_out = [item for item in entry["left_out"] if item["clip_id"] in chosen_clips]
        labelled = len(clips.names) - len(left_out)
        console.note(
            f"{modality}: {labelled} of {counted(len(clips.names), 'clip')} labelled in "
            f"{options.out}/{FOLDERS[modality]}"
        )
        lines = [f"{item['clip_id']}: {item['reason']}" for item in left_out]
        _list_clips(console, lines, "left out")
        bad += len(left_out)
    if bad:
        console.note(f"all clips that were left out are listed in {options.out}/{RECORD_FILE}")
    return 1 if bad else 0


def _spread(options: PseudoLabelOptions, modality: Any) -> Any:
    from avplatform.pseudo_labels.spread import spread_labels

    return spread_labels(partial(_source, options, modality), options, cpu=options.cpu)


def _check(options: PseudoLabelOptions) -> list[Any]:
    """Check the options before anything is loaded; return the modalities that have a source."""
    chosen = []
    for modality, media in (("visual", "frames"), ("audio", "waveforms")):
        names = [f"{modality}_logits", f"{modality}_features", media]
        given = [name for name in names if getattr(options, name) is not None]
        flags = [f"--{name.replace('_', '-')}" for name in given]
        if len(given) > 1:
            raise UsageError(
                f"{' and '.join(flags)} are sources of the same labels; give one of them"
            )
        for name in (f"{modality}_texts", f"{modality}_scale"):
            if getattr(options, name) is not None and given != [f"{modality}_features"]:
                raise UsageError(f"--{name.replace('_', '-')} goes with --{modality}-features")
        if not np.isfinite(getattr(options, f"{modality}_threshold_offset")):
            raise UsageError(f"--{modality}-threshold-offset must be a finite number")
        if given:
            if not located(getattr(options, given[0])).is_dir():
                raise DataError(f"{flags[0]} {getattr(options, given[0])}: there is no such folder")
            chosen.append(modality)
    if not chosen:
        raise UsageError(
            "there is nothing to make labels from; give --visual-logits, --visual-features or "
            "--frames, and --audio-logits, --audio-features or --waveforms (one per modality, or "
            "for one modality only)"
        )
    if not options.splits:
        raise UsageError("--splits is empty; name at least one split")
    return chosen


def _source(options: PseudoLabelOptions, modality: Any) -> Any:
    from avplatform.features.teachers import TextFeatures
    from avplatform.pseudo_labels.dataset import DATASET
    from avplatform.pseudo_labels.sources import FeatureFiles, LogitFiles, MediaFiles

    features = getattr(options, f"{modality}_features")
    if (logits := getattr(options, f"{modality}_logits")) is not None:
        return LogitFiles(logits)
    if features is None:
        media = str(options.frames if modality == "visual" else options.waveforms)
        teacher = _teacher(options, modality)
        return MediaFiles(media, modality=modality, teacher=teacher, spelling=options.spelling)
    texts, scale = getattr(options, f"{modality}_texts"), getattr(options, f"{modality}_scale")
    wanted = DATASET.prompts(modality, options.spelling)
    if texts is not None:
        return FeatureFiles(features, texts=TextFeatures.read(texts, scale=scale, prompts=wanted))
    if scale is not None:
        raise UsageError(
            f"--{modality}-scale goes with --{modality}-texts; a model knows its own scale"
        )
    return FeatureFiles(features, texts=_teacher(options, modality).text_features(wanted))


def _teacher(options: PseudoLabelOptions, modality: str) -> Any:
    from avplatform.base.machine import make_accelerator
    from avplatform.features.teachers import CLAPTeacher, CLIPTeacher

    device = make_accelerator(cpu=options.cpu, precision="no").device
    if modality == "visual":
        return CLIPTeacher(options.clip_model, device=device)
    return CLAPTeacher(options.clap_model, device=device)


def _score(args: list[str], prog: str) -> int:
    options = parse_flags(ScoreOptions, args, prog)
    from avplatform.base.files import give_json
    from avplatform.pseudo_labels.dataset import DATASET
    from avplatform.pseudo_labels.make import FOLDERS
    from avplatform.pseudo_labels.score import score_folder

    base = expanded(options.folder)
    if not base.is_dir():
        raise DataError(
            f"there is no folder {base}; give a folder that `avplatform pseudo-label` wrote"
        )
    found = {name: base / place for name, place in FOLDERS.items() if (base / place).is_dir()}
    visual, audio = options.visual or found.get("visual"), options.audio or found.get("audio")
    if visual is None and audio is None:
        raise DataError(
            f"{base} has neither {' nor '.join(FOLDERS.values())}; give --visual and --audio"
        )
    console = Console(enabled=options.json != "-")
    annotations = DATASET.read(options.annotations)
    scores = score_folder(
        annotations, options.split, visual=visual, audio=audio, strict=options.strict
    )
    rows = [[name, f"{value:.1f}"] for name, value in scores.figures.items()]
    console.table(
        f"pseudo-labels in {base}, {counted(scores.clips, 'clip')}, percent",
        ["", options.split],
        rows,
    )
    lines = [": ".join(item) for item in scores.missing]
    _list_clips(console, lines, "not scored")
    if options.json:
        names = ("clip_id", "modality", "reason")
        missing = [dict(zip(names, item, strict=True)) for item in scores.missing]
        content = {"split": options.split, "clips": scores.clips, "figures": scores.figures}
        give_json(options.json, {**content, "missing": missing})
    return 1 if scores.missing else 0


def _list_clips(console: Console, lines: list[str], what: str) -> None:
    for line in lines[:LISTED]:
        console.note(f"  {what}: {line}")
    if len(lines) > LISTED:
        console.note(f"  and {len(lines) - LISTED} more")
