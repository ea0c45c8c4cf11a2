"""Cards, and pushing a run's model to the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from avplatform.data.schema import DataSpec
from hub_cards import template
from models.errors import DataError

try:  # the transport under huggingface_hub
    from httpx2 import HTTPError as TransportError
except ImportError:
    from httpx import HTTPError as TransportError  # type: ignore[no-redef]

ABOUT = {
    "han": "HAN encodes both streams by self and cross-modal attention (Tian et al., ECCV 2020).",
    "ave": "The AVE encoder lets audio guide visual attention and runs one LSTM a stream (Tian et al., ECCV 2018).",
    "leap": "LEAP decodes by projecting segments onto the embeddings of class texts (Zhou et al., ECCV 2024).",
    "mmil": "MMIL classifies segments linearly and pools them by attention (Tian et al., ECCV 2020).",
    "dch": "The direct head classifies segments from the encoded features (Tian et al., ECCV 2018).",
}
TASKS = {"avel": "audio-visual event localization", "avvp": "audio-visual video parsing"}
CITATION = (
    "Please cite the papers named above. LEAP: Zhou et al., Label-anticipated Event Disentanglement for Audio-Visual Video "
    "Parsing, ECCV 2024."
)
UPLOADED = ["config.json", "model.safetensors", "README.md"]


def render_model_card(results: dict[str, Any], config: dict[str, Any], *, repo_id: str = "<repository>") -> str:
    """Return README.md of a model: metadata with its test results, how to use it, how it was trained.

    Args:
        results: the content of results.json.
        config: the model's config as a dictionary.
        repo_id: shown in the example.
    """
    splits = [s for s in ("validation", "test") if results.get(s)]
    selection, features = results.get("selection") or {}, config["features"]
    recipe = {
        "supervision": results["supervision"],
        "preset": results.get("preset") or "none",
        "seed": results["seed"],
        "epochs": results.get("epochs"),
        "optimiser steps": results.get("steps"),
        "clips a step": results.get("batch_size"),
        "precision": results.get("precision"),
        "parameters": f"{results.get('parameters', 0):,}",
        "data checksum": results.get("data_checksum"),
    }
    return _render(
        "model_card.md.jinja",
        metadata=_metadata(results),
        encoder=results["encoder"],
        decoder=results["decoder"],
        task_title=TASKS.get(results["task"], results["task"]),
        about=" ".join(ABOUT.get(results[k], "") for k in ("encoder", "decoder")).strip(),
        synthetic=results["synthetic"],
        data=results["data"],
        results=results,
        splits=splits,
        metric_names=list(results[splits[0]]) if splits else [],
        selection_sentence=_selection_sentence(selection),
        repo_id=repo_id,
        arguments="audio, visual, motion" if features.get("motion_dim") else "audio, visual",
        inputs=_inputs(features),
        recipe=list(recipe.items()),
        command=results.get("environment", {}).get("command", ""),
        classes=config["classes"],
        citation=CITATION,
    )


def card_of_spec(spec: DataSpec) -> str:
    """Return README.md of a dataset."""
    metadata = {"tags": ["avplatform", spec.task] + (["synthetic"] if spec.synthetic else [])}
    return _render(
        "dataset_card.md.jinja",
        metadata=yaml.safe_dump(metadata, sort_keys=False).strip(),
        spec=spec,
        shapes=[(name, list(shape)) for name, shape in spec.shapes().items()],
        provenance=json.dumps(spec.provenance, indent=2),
    )


def push_run(
    run: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Push a run's model folder to the Hub; return the repository's address.

    Raises:
        DataError: the folder is no whole model, or the Hub refuses or cannot be reached.
    """
    folder = model_folder(run)
    for name in UPLOADED:
        if not (folder / name).is_file():
            raise DataError(f"{folder} has no {name}, so it is not pushed; give the folder of a finished run")
    results_file = folder.parent / "results.json"
    api = HfApi(token=token)
    try:
        card = (folder / "README.md").read_text()
        if results_file.is_file():
            config = json.loads((folder / "config.json").read_text())
            card = render_model_card(json.loads(results_file.read_text()), config, repo_id=repo_id)
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        message = commit_message or "Upload model with avplatform"
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=["config.json", "model.safetensors"],
            revision=revision,
            commit_message=message,
        )
        api.upload_file(
            path_or_fileobj=card.encode(),
            path_in_repo="README.md",
            repo_id=repo_id,
            revision=revision,
            commit_message=f"{message}: card",
        )
    except (HfHubHTTPError, HFValidationError, TransportError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"the Hub did not take {repo_id} ({reason}); check the name, the network, and that `hf auth login` was done"
        ) from None
    return str(url)


def model_folder(path: str | Path) -> Path:
    """Return the model folder of a run or model folder."""
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"no folder {path}; give a run or model folder")
    return path / "model" if (path / "model").is_dir() else path


def _metadata(results: dict[str, Any]) -> str:
    """Return the YAML header, with the test metrics as a model index."""
    name = f"{results['encoder']}-{results['decoder']}-{results['task']}"
    metrics = [
        {"type": metric, "name": f"test {metric}", "value": round(value, 2)}
        for metric, value in (results.get("test") or {}).items()
    ]
    data = {
        "library_name": "avplatform",
        "license": "apache-2.0",
        "tags": ["avplatform", "audio-visual", results["task"], results["encoder"], results["decoder"]]
        + (["synthetic-data"] if results["synthetic"] else []),
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": results["task"], "name": TASKS.get(results["task"], results["task"])},
                        "dataset": {"type": results["data"], "name": results["data"], "split": "test"},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }
    if not metrics:
        del data["model-index"]
    return yaml.safe_dump(data, sort_keys=False).strip()


def _selection_sentence(selection: dict[str, Any]) -> str:
    if not selection:
        return "How the epoch was chosen is not known."
    if selection["split"] == "test":
        return f"Epoch {selection['epoch']} was **selected on the test split** ({selection['metric']}): too good by as much."
    if selection["split"] == "none":
        return f"The last epoch ({selection['epoch']}) was kept."
    return f"Epoch {selection['epoch']} was selected on {selection['split']} ({selection['metric']})."


def _inputs(features: dict[str, Any]) -> str:
    visual = [*(features.get("map_size") or []), features["visual_dim"]]
    text = f"audio [B, T, {features['audio_dim']}], visual [B, T, {', '.join(map(str, visual))}]"
    return text + (f", motion [B, T, {features['motion_dim']}]" if features.get("motion_dim") else "")


def _render(name: str, **values: Any) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return environment.from_string(template(name)).render(**values)
