"""What the pages say runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


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


def test_ci_runs_the_readmes_commands():
    ci, readme = (ROOT / ".ci/run").read_text(), (ROOT / "README.md").read_text()
    assert 'pip install -e ".[dev]" && pytest' in readme
    assert '-e ".[dev]" && pytest' in ci
    assert "accelerate launch train.py --task avel --decoder leap" in readme
    assert "accelerate launch train.py --task avel --decoder leap --max-steps 20" in ci
