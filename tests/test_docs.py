"""What the pages say runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import avplatform
from tests import tree

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *("README.md", "CONTRIBUTING.md"),
    *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md"))),
    *(f"hub_cards/{file.name}" for file in sorted((ROOT / "hub_cards").glob("*.jinja"))),
]
IMPORT = re.compile(
    r"^(?:from (avplatform[\w.]*) import (.+)|import (avplatform[\w.]*).*)$", flags=re.M
)


def blocks(page, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), flags=re.S)


@pytest.mark.parametrize("task", ["avel", "avvp"])
def test_the_page_on_extending_trains_its_encoder_and_decoder(task, small_stores, tmp_path):
    code = "\n".join(b for b in blocks("docs/extend.md") if "main(" not in b)
    assert "register_encoder" in code and "register_decoder" in code
    out = tmp_path / "run"
    flags = ["train", "--task", task, "--encoder", "gated", "--decoder", "linear", "--max-steps", "3", "--cpu",
             "--encoder-config.width", "8", "--data", str(small_stores[task]), "--output-dir", str(out)]  # fmt: skip
    script = tmp_path / "mine.py"
    script.write_text(
        f"{code}\nfrom avplatform.cli import main\n"
        f"assert main({flags!r}) == 0\n"
        f"assert main(['eval', {str(out)!r}, '--data', {str(small_stores[task])!r}, '--cpu']) == 0\n"
    )
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env=env
    )
    assert done.returncode == 0, done.stderr[-2000:]
    content = json.loads((out / "results.json").read_text())
    assert (content["encoder"], content["decoder"]) == ("gated", "linear")
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["encoder"] == {"_type": "gated", "width": 8}


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


def private_imports(text):
    """Return the imports of a page's code that are not from the public names of `avplatform`."""
    found = []
    for line in re.findall(r"```python\n(.*?)```", text, flags=re.S):
        for match in IMPORT.finditer(line):
            names = set(re.findall(r"\w+", match[2] or ""))
            if (match[1] or match[3]) != "avplatform" or not names <= set(avplatform.__all__):
                found.append(match[0])
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/extend.md"])
def test_pages_and_cards_import_public_names_only(page):
    assert private_imports((ROOT / page).read_text()) == []


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
