"""Golden cases of CMPAE: model, losses, label rule, thresholds of classes, and training steps."""

from __future__ import annotations

from statistics import fmean
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from avplatform.data.adapters.registry import make_task
from avplatform.models.contracts import Output, Parse, Prediction, StreamPredictions
from avplatform.models.decoders.cmpae import Evidence, EvidenceConfig
from avplatform.tasks.avvp.class_thresholds import class_threshold_scores
from avplatform.tasks.avvp.config import AVVPConfig
from avplatform.tasks.avvp.denoise import Denoiser
from avplatform.tasks.avvp.losses import han_loss, weighted
from avplatform.tasks.avvp.targets import Kept, kept_labels, smooth
from avplatform.tasks.batch import Batch, Moment, Processes
from avplatform.tasks.contracts import Task
from avplatform.tasks.losses import jomold_rows, segment_similarity
from avplatform.tasks.metrics import Metrics
from avplatform.tasks.mutual_learning import mutual_learning_of
from avplatform.tasks.registry import task_of_model
from tests.parity.cases_models import Produced, build
from tests.parity.cases_training import llp_batch, train
from tests.parity.golden_case import Case

STREAMS = ("audio", "visual")


def features(case: Case, prefix: str = "") -> tuple[Tensor, ...]:
    return tuple(case.input(f"{prefix}{name}") for name in ("audio", "visual", "visual_st"))


def probabilities(output: Output) -> Produced:
    parse = output.parse
    return {
        "a_prob": parse.video.audio.probability,
        "v_prob": parse.video.visual.probability,
        "global_prob": parse.video.av.probability,
        "frame_prob": torch.stack([getattr(parse.segment, s).probability for s in STREAMS], dim=2),
        "a_uncertainty": parse.aux["uncertainty_audio"],
        "v_uncertainty": parse.aux["uncertainty_visual"],
    }


def cmpae_model(case: Case, model: torch.nn.Module | None = None) -> None:
    model, data = model or build(case, "cmpae"), features(case)
    with torch.no_grad():
        stem, output = model.stem(*data), model(*data)
        with model.encoder.self_only():
            alone = model(*data)
        crossed = model.encoder._pass(*stem, cross=True)
        x = torch.stack([output.encoding.audio, output.encoding.visual], dim=2)
        absent = model.decoder.absent(x)
        similarity = segment_similarity(output.encoding.audio, output.encoding.visual)
    parse, aux, own = output.parse, output.parse.aux, output.encoding.aux
    produced = {
        **probabilities(output),
        "stem_a": stem[0][..., ::16],
        "stem_v": stem[1][..., ::16],
        "self_a": own["self_audio"][..., ::16],
        "self_v": own["self_visual"][..., ::16],
        "cross_a": crossed[0][..., ::16],
        "cross_v": crossed[1][..., ::16],
        "enc_a": output.encoding.audio,
        "enc_v": output.encoding.visual,
        "absence_in_a": absent[:, :, 0, ::16],
        "absence_in_v": absent[:, :, 1, ::16],
        "frame_logits": aux["segment_logits"],
        "frame_att": aux["evidence_attention"],
        "video_logits": aux["video_logits"],
        "frame_uncertainty": aux["segment_uncertainty"],
        "global_uncertainty": aux["uncertainty_av"],
        "similarity": similarity / case.config["nce_temperature"],
    }
    names = ("a_prob", "v_prob", "frame_prob")
    produced |= {f"selfonly_{name}": probabilities(alone)[name] for name in names}
    fused = probabilities(Output(parse.for_decisions, output.encoding))
    produced |= {f"fused_{name}": fused[name] for name in names}
    task = task_of_model(model.config)
    decided = task.decide(parse)
    produced |= {"map_a": decided["audio"], "map_v": decided["visual"]}
    task.config.visual_class_thresholds = tuple(case.config["released_visual_thresholds"])
    produced["map_v_released"] = task.decide(parse)["visual"]
    case.compare(produced)


def cmpae_losses(case: Case) -> None:
    weights, floor = case.config["weights"], case.config["global_uncertainty_floor"]
    weak = case.labels_above("target")
    names = ("global_prob", "a_prob", "v_prob", "a_uncertainty", "v_uncertainty")
    given = {name: case.input(name).sigmoid() for name in names}
    given["global_uncertainty"] = (3 * case.input("global_uncertainty")).sigmoid()
    produced: Produced = {"target": weak}
    totals = {}
    for parity in ("even", "odd"):
        leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
        parse = parse_of(leaves)
        loss = mutual_learning_of(
            parse, weak, batch=int(parity == "odd"), weight=weights["mutual"], floor=floor
        )["mutual"]
        loss.backward()
        produced[f"loss_mutual_{parity}"] = totals[parity] = loss.detach()
        produced |= {
            f"grad_mutual_{parity}_{name}": torch.zeros_like(x) if x.grad is None else x.grad
            for name, x in leaves.items()
        }
    terms = han_loss(
        parse_of(given),
        weak,
        audio_smooth=case.config["a_smooth"],
        visual_smooth=case.config["v_smooth"],
    )
    similarity = (2 * case.input("similarity")).requires_grad_()
    terms["contrast"] = jomold_rows(similarity, smoothing=case.config["contrast_smoothing"]).mean()
    terms["contrast"].backward()
    produced |= {f"loss_{name}": value.detach() for name, value in terms.items()}
    produced["grad_contrast_similarity"] = similarity.grad
    rest = weighted(terms, weights)
    produced |= {f"loss_total_{p}": sum(rest.values()) + mutual for p, mutual in totals.items()}
    case.compare(produced)


def parse_of(values: dict[str, Tensor]) -> Parse:
    """Predictions of whole clips with these probabilities and uncertainties."""
    named = dict(zip(("audio", "visual", "av"), ("a", "v", "global"), strict=True))
    video = {ours: Prediction(values[f"{n}_prob"], "probability") for ours, n in named.items()}
    aux = {f"uncertainty_{ours}": values[f"{n}_uncertainty"] for ours, n in named.items()}
    return Parse(video=StreamPredictions(**video), aux=aux)


def cmpae_thresholds(case: Case) -> None:
    config = case.config
    classes = case.json["inputs"]["input.present_a"][1]
    truth = {s: truth_of(case, s[0]) for s in STREAMS}  # (N, T, C)
    scores = {"cross": scores_of(case, "cross", truth), "self": scores_of(case, "self", truth)}
    decoder = Evidence(
        config=EvidenceConfig(fusion=config["fuse_ratio"]), width=1, num_classes=classes
    )
    segment, video = (
        decoder._fused(scores["cross"][level], scores["self"][level]) for level in (0, 1)
    )
    video.av = video.audio
    parse = Parse(segment=segment, video=video)
    task = make_task(
        "avvp",
        AVVPConfig(
            supervision="weak",
            gate="modality",
            threshold=config["default_visual_video_threshold"],
            audio_video_threshold=config["audio_video_threshold"],
            audio_segment_threshold=config["segment_threshold"],
            visual_segment_threshold=config["segment_threshold"],
            class_thresholds="visual",
        ),
    )
    plain = scored(task, parse, truth)
    settled = task.settle(plain)
    grid = class_threshold_scores(
        plain.evidence["visual"] >= config["segment_threshold"],
        plain.evidence["video_visual"],
        plain.state()["true_visual"],
        default=config["default_visual_video_threshold"],
        candidates=config["candidates"],
    )
    case.compare(
        {
            "truth_a": truth["audio"].transpose(1, 2),
            "truth_v": truth["visual"].transpose(1, 2),
            "fused_video_a": video.audio.probability,
            "fused_video_v": video.visual.probability,
            "metric_grid": grid,
            "chosen": settled.config.visual_class_thresholds,
            "plain": with_mean(plain),
            "tuned": with_mean(scored(settled, parse, truth)),
        }
    )


def with_mean(metrics: Metrics) -> list[float]:
    """The ten figures and their mean, which selects the epoch."""
    values = list(metrics.compute().values())
    return [*values, fmean(values)]


def truth_of(case: Case, letter: str) -> Tensor:
    """The true segments of a stream from presence, onset and length: [N, T, C]."""
    present, onset, length = (
        case.input(f"{name}_{letter}").double() for name in ("present", "onset", "length")
    )
    present = (present > 0.7) & (torch.arange(present.shape[1]) < 20)
    onset = (3 * onset.abs()).floor() % 8
    offset = (onset + 1 + (4 * length.abs()).floor()).clamp(max=10)
    t = torch.arange(10)[None, :, None]
    return present[:, None] & (t >= onset[:, None]) & (t < offset[:, None])


def scores_of(
    case: Case, name: str, truth: dict[str, Tensor]
) -> tuple[StreamPredictions, StreamPredictions]:
    """The made-up probabilities of one pass, of segments and of videos."""
    segment, video = {}, {}
    for stream, true in truth.items():
        frame, whole = (
            case.input(f"{name}.{level}_{stream[0]}").double() for level in ("frame", "video")
        )
        frame = (-1.1 + 1.1 * (2.0 * true - 1) + frame).sigmoid().float()
        whole = (0.8 * (2.0 * true.any(dim=1) - 1) + whole).sigmoid().float()
        if stream == "visual":
            whole[:, 22], whole[:, 23:] = 0.5, 0.125
        segment[stream] = Prediction(frame, "probability")
        video[stream] = Prediction(whole, "probability")
    return StreamPredictions(**segment), StreamPredictions(**video)


def scored(task: Task, parse: Parse, truth: dict[str, Tensor]) -> Metrics:
    """The metrics of these predictions, with their evidence."""
    labels = {f"dense_{stream}": true for stream, true in truth.items()}
    labels["weak"] = (truth["audio"] | truth["visual"]).any(dim=1)
    row = torch.arange(len(labels["weak"]))
    batch = Batch(audio=row, visual=row, motion=None, row=row, clip_id=[], labels=labels)
    decisions, metrics = task.decide(parse), task.metrics()
    metrics.update(decisions, batch)
    evidence = task.evidence(parse, decisions)
    metrics.evidence = {name: value.numpy() for name, value in evidence.items()}
    return metrics


def noise_ratios(case: Case) -> dict[str, Tensor]:
    return {name: case.input(f"noise_{name}").double().sigmoid() for name in STREAMS}


def cmpae_denoise(case: Case) -> None:
    config, ratios = case.config, noise_ratios(case)
    smoothing = config["a_smooth"], config["v_smooth"]
    denoiser = Denoiser(torch.stack(list(ratios.values())), warm_up_epochs=config["warm_up_epochs"])
    count = config["batches_per_epoch"]
    limit = case.threshold("target")
    targets = [(case.input(f"batch{b}.target") > limit).float() for b in range(count)]
    produced: Produced = {"target": torch.stack(targets)}
    for epoch in (1, 2):
        found: dict[str, list[Tensor]] = {"a": [], "v": []}
        for b, weak in enumerate(targets):
            given = [(2 * case.input(f"batch{b}.{letter}_prob")).sigmoid() for letter in "av"]
            gone = denoiser.dropped(
                torch.stack(given),
                weak.expand(2, -1, -1),
                targets=(smooth(1.0, smoothing[0]), smooth(1.0, smoothing[1])),
                strength=denoiser.strength(Moment(epoch, b, count)),
            )
            kept = Kept(audio=~gone[0], visual=~gone[1])
            for name, s in zip(STREAMS, smoothing, strict=True):
                found[name[0]].append(kept.target(name, weak, s))
        produced |= {f"labels_{k}_epoch{epoch}": torch.stack(v) for k, v in found.items()}
    case.compare(produced)


def train_cmpae(case: Case) -> None:
    config, weights = case.config, case.config["weights"]
    smoothing = dict(audio=config["a_smooth"], visual=config["v_smooth"])
    labels: Produced = {"labels_a": [], "labels_v": []}
    with TemporaryDirectory() as folder:
        ratios = {name: value.numpy() for name, value in noise_ratios(case).items()}
        np.savez(f"{folder}/ratios.npz", **ratios)
        task_config = AVVPConfig(
            supervision="weak",
            denoise="self",
            noise_ratios=f"{folder}/ratios.npz",
            contrast="jomold",
            contrast_temperature=config["nce_temperature"],
            global_uncertainty_floor=config["global_uncertainty_floor"],
            **{f"{name}_smooth": value for name, value in smoothing.items()},
            **{f"{name}_weight": value for name, value in weights.items()},
        )
        task = make_task("avvp", task_config)

        def prepare(model: torch.nn.Module, batch: Batch, step: int) -> Batch:
            batch.moment = Moment(config["epoch"], step, case.json["steps"])
            ready = task.prepare(model, batch, Processes())
            for name, s in smoothing.items():
                target = kept_labels(ready).target(name, ready.labels["weak"], s)
                rows = case.stored["labels_a"].shape[1] - len(target)
                labels[f"labels_{name[0]}"].append(F.pad(target, (0, 0, 0, rows)))
            return ready

        model, recorded = train(case, "cmpae", task, llp_batch, prepare=prepare)
    terms = {f"loss_{name}": recorded[name] / weight for name, weight in weights.items()}
    output = model(*features(case, "test."))
    test = probabilities(output)
    fused = probabilities(Output(output.parse.for_decisions, output.encoding))
    names = ("a_prob", "v_prob", "frame_prob")
    test |= {f"fused_{name}": fused[name] for name in names}
    found = {name: torch.stack(values) for name, values in labels.items()}
    case.compare({**recorded, **terms, **found, **{f"test_{k}": v for k, v in test.items()}})


CASES = {
    "cmpae_denoise": cmpae_denoise,
    "train_cmpae": train_cmpae,
    "cmpae_model": cmpae_model,
    "cmpae_losses": cmpae_losses,
    "cmpae_thresholds": cmpae_thresholds,
}
