"""Faults of more than forty kinds, planted one or more at a time: `python -m tests.faults.planted`.

Small LLP and AVE trees in the official formats (made-up annotations, drawn features) and stores
imported from them are damaged, then imported or verified by the commands themselves. A fault counts
as found if the command ends with the exit code that its page promises, and one of its messages
names the place (file, line, clip or row) and what is wrong. Ends with exit code 1 unless every
fault was found.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from avplatform.cli import main as command
from avplatform.data.importing import ImportOptions, import_data
from avplatform.data.simulate import simulate
from avplatform.data.store.card import render_dataset_card
from tests.faults import files as file_faults
from tests.faults import stores as store_faults
from tests.faults.files import Fault


def ran(*args: str) -> tuple[int, str]:
    """Run a command; return its exit code and all that it printed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = command([*args])
    return code, out.getvalue()


def imported(dataset: str, tree: Path, out: Path) -> tuple[int, list[str]]:
    """Import; return the exit code and the messages: what was printed, and the report's entries."""
    code, text = ran("data", "import", dataset, str(tree), "--out", str(out))
    messages = text.splitlines()
    if (out / "import_report.json").is_file():
        report = json.loads((out / "import_report.json").read_text())
        messages += [
            json.dumps(item, ensure_ascii=False) for item in report["left_out"] + report["defects"]
        ]
    return code, messages


def verified(store: Path, annotations: Path) -> tuple[int, list[str]]:
    """Verify; return the exit code and the findings, each of which must have been printed too."""
    file = store.with_suffix(".json")
    code, text = ran(
        "data", "verify", str(store), "--annotations", str(annotations), "--json", str(file)
    )
    assert max(map(len, text.splitlines())) <= 80 + len(str(store)), text
    found = json.loads(file.read_text()) if file.is_file() else {"errors": [], "warnings": []}
    printed = " ".join(text.split())
    return code, [
        " ".join(
            [
                item["kind"],
                item.get("file", ""),
                f"row {item.get('row')}",
                item.get("clip_id", ""),
                item["text"],
            ]
        )
        for item in found["errors"] + found["warnings"]
        if all(str(item.get(key, "")) in printed for key in ("kind", "file", "clip_id"))
    ]


def missed(faults: Sequence[Fault], code: int, messages: list[str], wanted: int) -> list[str]:
    """Return what was not found or not named."""
    out = []
    for fault in faults:
        if code != wanted:
            out.append(f"{fault.kind}: exit code {code} instead of {wanted}")
        elif not any(all(part in message for part in fault.named) for message in messages):
            out.append(
                f"{fault.kind}: no message has {' and '.join(fault.named)}:\n    "
                + "\n    ".join(messages[:40])
            )
    return out


def run_all(folder: Path, *, clips: int = 60, rows: int = 60) -> tuple[list[Fault], list[str]]:
    """Plant everything; return the faults and what was missed."""
    annotations = {
        "llp": file_faults.llp_annotations(folder / "llp-labels", clips),
        "ave": file_faults.ave_annotations(folder / "ave-labels", rows),
    }
    trees, stores = {}, {}
    for dataset, task in (("llp", "avvp"), ("ave", "avel")):
        trees[dataset], stores[dataset] = folder / dataset, folder / f"{dataset}-store"
        simulate(task, annotations[dataset], trees[dataset], layout="official")
        options = ImportOptions(
            dataset=dataset, source=str(trees[dataset]), out=str(stores[dataset])
        )
        import_data(options, card=render_dataset_card, rows_per_shard=10)
        code, messages = verified(stores[dataset], annotations[dataset])
        assert code == 0, messages
    faults: list[Fault] = []
    out: list[str] = []

    def trial(dataset: str, planted: list[Fault], wanted: int, *, store: bool = False) -> None:
        damaged = folder / "damaged"
        shutil.copytree((stores if store else trees)[dataset], damaged, copy_function=os.link)
        for fault in planted:
            fault.plant(damaged)
        if store:
            code, messages = verified(damaged, annotations[dataset])
        else:
            code, messages = imported(dataset, damaged, folder / "out")
        faults.extend(planted)
        out.extend(missed(planted, code, messages, wanted))
        shutil.rmtree(damaged)
        shutil.rmtree(folder / "out", ignore_errors=True)

    trial("llp", file_faults.llp_together(clips), 1)
    trial("ave", file_faults.ave_together(), 1)
    for dataset, alone in (
        ("llp", file_faults.llp_alone(clips)),
        ("ave", file_faults.ave_alone(rows)),
    ):
        for fault in alone:
            trial(dataset, [fault], 1)
    for dataset, damage in (
        ("llp", store_faults.llp_store(clips)),
        ("ave", store_faults.ave_store()),
    ):
        for fault in damage:
            trial(dataset, [fault], 0 if fault.kind == "shard of no manifest" else 1, store=True)
    return faults, out


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=60, help="of LLP and of AVE each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faults, out = run_all(Path(folder), clips=options.clips, rows=options.clips)
    for text in out:
        print(f"missed: {text}")
    kinds = len({fault.kind for fault in faults})
    print(f"{len(faults)} planted, {len(faults) - len(out)} found and named, {kinds} kinds")
    return 1 if out else 0


if __name__ == "__main__":
    sys.exit(main())
