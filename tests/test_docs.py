"""What the pages say runs."""

import json
import re
from pathlib import Path

import pytest

import avplatform
from tests import tree
from tests.forked import run_forked

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
    *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))),
    *(f"hub_cards/{file.name}" for file in sorted((ROOT / "hub_cards").glob("*.jinja"))),
]
IMPORT = re.compile(
    r"^(?:from (avplatform[\w.]*) import (.+)|import (avplatform[\w.]*).*)$", flags=re.M
)


def blocks(page, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), flags=re.S)


def parts_of_the_page():
    """Return the page's my_parts.py and my_platform.py, and the code that makes its files."""
    code = blocks("docs/extend.md")
    (program,) = [block for block in code if "main(" in block]
    (files,) = [block for block in code if "default_rng" in block]
    return "\n\n".join(b for b in code if b not in (program, files)), program, files


@pytest.mark.parametrize("task", ["avel", "avvp"])
def test_the_page_on_extending_trains_its_encoder_and_decoder(task, small_stores, tmp_path):
    code, _, _ = parts_of_the_page()
    assert "register_encoder" in code and "register_decoder" in code
    out = tmp_path / "run"
    flags = ["train", "--task", task, "--encoder", "gated", "--decoder", "linear",
             "--max-steps", "3", "--cpu", "--encoder-config.width", "8",
             "--data", str(small_stores[task]), "--output-dir", str(out)]  # fmt: skip
    script = tmp_path / "mine.py"
    script.write_text(
        f"{code}\nfrom avplatform.cli import main\n"
        f"assert main({flags!r}) == 0\n"
        f"assert main(['eval', {str(out)!r}, "
        f"'--data', {str(small_stores[task])!r}, '--cpu']) == 0\n"
    )
    done = run_script(script)
    assert done.returncode == 0, done.stderr[-2000:]
    content = json.loads((out / "results.json").read_text())
    assert (content["encoder"], content["decoder"]) == ("gated", "linear")
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["encoder"] == {"_type": "gated", "width": 8}


def run_script(script, *args):
    folder = script.parent
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    code = f"import runpy, sys\nsys.argv[0] = {script.name!r}\n"
    code += f"runpy.run_path({script.name!r}, run_name='__main__')"
    return run_forked(code, *args, env=env, cwd=folder, timeout=600)


DRIVER = """
import sys

import my_parts
from avplatform.cli import main

for line in sys.argv[1:]:
    try:
        code = main(line.split())
    except SystemExit as ended:
        code = ended.code or 0
    print(f"\\n$ {line} -> {code}", flush=True)

import numpy as np
from avplatform import AVModel, load_predictions, pipeline, task_of_model
from avplatform.timeline.windows import Features

model = AVModel.from_pretrained("runs/dense/model")
task = task_of_model(model.config)
assert isinstance(task, my_parts.Dense) and task.classes == my_parts.Kitchen.classes
rng = np.random.default_rng(0)
audio, visual = (rng.standard_normal((9, n)).astype("float32") for n in (8, 12))
features = Features(audio=audio, visual=visual)
timeline = pipeline("runs/dense", extractor=object()).parse(features)
assert timeline.duration == 4.5 and set(timeline.scores) == {"av"}
assert {event.stream for event in timeline.events} <= {"av"}
predictions = load_predictions("runs/dense/predictions/test.safetensors")
assert set(predictions.state) == {"row", "found", "true"}
print("all is well")
"""


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """Return a stranger's folder in which the page's commands were run, and what they printed."""
    folder = tmp_path_factory.mktemp("stranger")
    parts, program, files = parts_of_the_page()
    for name, code in {
        "my_parts": parts,
        "my_platform": program,
        "files": files,
        "driver": DRIVER,
    }.items():
        (folder / f"{name}.py").write_text(code)
    assert run_script(folder / "files.py").returncode == 0
    small = "--max-steps 3 --cpu --threads 1 --precision no --batch-size 4"
    commands = []
    for line in blocks("docs/extend.md", "bash")[0].splitlines():
        command = line.removeprefix("python my_platform.py ")
        assert command != line
        commands.append(command.replace("--max-steps 20", small))
    train = "train --task dense --data data/dense --encoder"
    more = [
        "list datasets",
        "train --task dense --encoder gated --decoder linear --help",
        "data import --help",
        f"{train} han --decoder dch --output-dir runs/dch --no-save-plots {small}",
        f"{train} psp --decoder mmil --output-dir runs/mmil --no-save-plots {small}",
        f"{train} gated --decoder leap --held-out blender --output-dir runs/held {small}",
        "eval runs/held --held-out blender --cpu",
        "bank runs/held --cpu",
        "data card data/dense",
        "data simulate --task dense --annotations kitchen --out simulated",
        "train --task dense --data demo",
        "eval runs/dense --cpu --bootstrap 50",
    ]
    done = run_script(folder / "driver.py", *commands, *more)
    return folder, done, commands


def codes(done):
    found = re.findall(r"^\$ (.*) -> (\w+)$", done.stdout, flags=re.M)
    return {line: int(code) for line, code in found}


def test_the_commands_of_the_page_on_extending_run(kitchen):
    folder, done, commands = kitchen
    assert done.returncode == 0 and "all is well" in done.stdout, done.stderr[-3000:]
    found = codes(done)
    failed = [line for line, code in found.items() if code]
    assert not set(failed) & set(commands) and len(found) == len(commands) + 12
    assert [line.split()[:2] for line in failed] == [
        ["bank", "runs/held"],
        ["data", "simulate"],
        ["train", "--task"],
        ["eval", "runs/dense"],
    ]
    for said in (
        "the task dense has no rule",
        "dense-kitchen has no simulation",
        "no demo data for dense",
        "'dense' has no analysis",
    ):
        assert said in done.stderr


def test_a_strangers_parts_are_known_to_every_command(kitchen):
    _, done, _ = kitchen
    text = " ".join(done.stdout.split())
    for said in (
        "gated Each stream is gated by the other one.",
        "linear One linear map per stream.",
        "dense Any number of events per segment that are both heard and seen.",
        "dense-kitchen The kitchen, labelled with what is heard and seen at once.",
        "cell dense-gated-linear-full",
        "--encoder-config.width INT",
        "--decoder-config.bias",
        "--task-config.threshold FLOAT",
        "all is as it should be",
        "Features of segments of 0.5 s for dense",
    ):
        assert said in text, said
    assert re.search(r"\{llp,ave,[^}]*kitchen,dense-kitchen\}", text)


def test_a_strangers_run_leaves_what_every_run_leaves(kitchen):
    folder, _, _ = kitchen
    run = folder / "runs" / "dense"
    content = json.loads((run / "results.json").read_text())
    assert [content[name] for name in ("task", "encoder", "decoder", "data")] == [
        "dense",
        "gated",
        "linear",
        "dense-kitchen",
    ]
    assert set(content["test"]) == {"segment_F"} and content["details"]["test"] == {"clips": 6}
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["task_config"] == {"supervision": "full", "threshold": 0.5}
    assert (config["segments"], config["segment_seconds"]) == (6, 0.5)
    card = (run / "model" / "README.md").read_text()
    assert "`dense` was registered by another package." in card and "segment_F" in card
    assert {file.name for file in (run / "plots").iterdir()} == {"curves.png", "timelines.png"}
    assert (folder / "runs" / "avvp" / "plots" / "per_class.png").is_file()
    held = json.loads((folder / "runs" / "held" / "model" / "config.json").read_text())
    assert held["label_texts"] == ["frying food", "alarm clock"]


def test_without_its_module_a_strangers_model_says_what_is_unknown(kitchen, capsys):
    from avplatform.cli import main

    folder, _, _ = kitchen
    assert main(["eval", str(folder / "runs" / "dense"), "--cpu"]) != 0
    assert "unknown decoder 'linear'" in capsys.readouterr().err


def test_each_part_of_the_page_on_extending_takes_about_forty_lines():
    lines = {}
    for code in blocks("docs/extend.md"):
        for name in re.findall(
            r"^register_(\w+)\(\"(?:gated|linear|kitchen|dense)\"", code, flags=re.M
        ):
            lines[name] = len([line for line in code.splitlines() if line.strip()])
    assert set(lines) == {"encoder", "decoder", "dataset", "task"} and max(lines.values()) <= 45


def test_the_readme_names_commands_and_files_that_exist():
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / link).exists(), link
    from avplatform.cli import COMMANDS

    used = set(re.findall(r"^avplatform ([\w-]+)", text, flags=re.M))
    assert used and used <= set(COMMANDS)
    presets = re.findall(r"--preset (\S+)", text)
    from avplatform.config.presets import list_presets

    assert presets and set(presets) <= set(list_presets())


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120


def private_imports(text):
    """Return the imports of a page's code that are not from the public names of `avplatform`."""
    found = []
    for line in re.findall(r"```python\n(.*?)```", text, flags=re.S):
        for match in IMPORT.finditer(line):
            names = set(re.findall(r"\w+", match[2] or ""))
            if (match[1] or match[3]) != "avplatform" or not names <= set(avplatform.__all__):
                found.append(match[0])
    return found


@pytest.mark.parametrize("page", PAGES)
def test_pages_and_cards_import_public_names_only(page):
    """The command line, which a program that knows parts of its own calls, is a door too."""
    doors = ["from avplatform.cli import main"] if page == "docs/extend.md" else []
    assert private_imports((ROOT / page).read_text()) == doors


@pytest.mark.parametrize(
    "line",
    [
        "from avplatform.models.av_model import AVModel",
        "from avplatform import nothing, AVModel",
        "import avplatform.data",
    ],
)
def test_a_private_import_on_a_page_is_found(line):
    assert private_imports(f"Text.\n\n```python\n{line}\n```\n") == [line]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_that_pages_name_exist(page):
    """Files are named in backquotes from the repository's root, links from the page's folder."""
    text = (ROOT / page).read_text()
    folder = (ROOT / page).parent
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s{]+)\)", text)]
    missing = [x for x in links if not x.startswith("http") and not (folder / x).exists()]
    named = re.findall(
        r"`((?:avplatform|models|tasks|tests|benchmarks|examples|docs)/[\w./-]*)`", text
    )
    placeholders = {name for name in named if re.search(r"/X\b", name)}
    missing += [n for n in set(named) - placeholders if not (ROOT / n).exists()]
    assert missing == []


def test_the_tree_is_the_one_that_is_there():
    shown = tree.BLOCK.search(tree.PAGE.read_text("utf-8"))
    assert shown is not None and shown[0] == tree.tree(), "run `python -m tests.tree`"


def test_every_folder_of_the_tree_says_what_it_is():
    lines = tree.tree().splitlines()
    assert [line for line in lines if len(line) < tree.COLUMN + 15] == []


def test_a_new_folder_is_missed_on_the_page(tmp_path):
    for top in tree.TREES:
        (tmp_path / top).mkdir()
        (tmp_path / top / "__init__.py").write_text('"""What it is."""\n')
    before = tree.tree(tmp_path)
    (tmp_path / "tasks" / "new").mkdir()
    (tmp_path / "tasks" / "new" / "__init__.py").write_text('"""A new task."""\n')
    added = set(tree.tree(tmp_path).splitlines()) - set(before.splitlines())
    assert added == {f"{'  new/':<{tree.COLUMN}}A new task."}


def test_ci_runs_the_readmes_commands():
    ci, readme = (ROOT / ".ci/run").read_text(), (ROOT / "README.md").read_text()
    assert 'pip install -e ".[dev]" && pytest' in readme
    assert '-e ".[dev]" && pytest' in ci
    assert "accelerate launch train.py --task avel --decoder leap" in readme
    assert "accelerate launch train.py --task avel --decoder leap --max-steps 20" in ci
