"""The command line: one message and an exit code for every mistake, the same names everywhere."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from avplatform.cli import main
from avplatform.config.compose import compose, parse
from avplatform.config.presets import list_presets, preset_options
from avplatform.config.recipes import RECIPES
from avplatform.config.run import default_config, option_names
from avplatform.config.values import to_dict
from avplatform.models.errors import AVError, DataError, UsageError

ROOT = Path(__file__).resolve().parent.parent


def test_defaults_of_the_tasks():
    avel, avvp = parse(["--task", "avel"]), parse(["--task", "avvp"])
    assert (avel.encoder, avel.decoder, avel.supervision, avel.data) == (
        "ave",
        "leap",
        "full",
        "demo",
    )
    assert (avvp.encoder, avvp.decoder, avvp.supervision) == ("han", "leap", "pseudo")


def test_flags_yaml_and_python_use_the_same_names(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("task: avvp\nencoder: han\noptim: {lr: 1e-4}\nencoder_config: {width: 64}\n")
    from_yaml = parse(["--config", str(file)])
    from_flags = parse(
        ["--task", "avvp", "--encoder", "han", "--optim.lr", "1e-4", "--encoder-config.width", "64"]
    )
    assert dataclasses.replace(from_yaml, config=None) == from_flags
    assert from_flags.optim.lr == 1e-4 and from_flags.encoder_config.width == 64


def test_flags_win_over_yaml_and_yaml_over_the_preset(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("preset: han-mmil-avvp\nepochs: 7\n")
    config = parse(["--config", str(file), "--batch-size", "8"])
    assert (config.epochs, config.batch_size, config.optim.lr, config.decoder) == (
        7,
        8,
        3e-4,
        "mmil",
    )


def test_what_a_file_says_is_checked_together_with_the_flags(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("accumulation: 64\ndecoder_config: {heads: 3}\n")
    config = parse(["--config", str(file), "--batch-size", "96", "--decoder-config.width", "6"])
    assert (config.accumulation, config.batch_size) == (64, 96)
    assert (config.decoder_config.heads, config.decoder_config.width) == (3, 6)
    with pytest.raises(UsageError, match="accumulation is 64 but a step has only 32 clips"):
        parse(["--config", str(file)])
    with pytest.raises(UsageError, match=r"LEAPConfig.heads is 3; it must divide width \(4\)"):
        parse(["--config", str(file), "--batch-size", "96", "--decoder-config.width", "4"])


def test_the_fields_say_what_a_change_of_an_option_means():
    free = option_names(repeated=False)
    assert not free & option_names(compared=True), "results that may differ are not compared"
    assert option_names(of_command=True) < free
    assert free - option_names(resumable=True) == {"config", "output_dir"}
    assert option_names(resumable=True, compared=True) == {
        "epochs",
        "max_steps",
        "patience",
        "precision",
    }
    assert {"optim", "labels", "encoder_config", "held_out"} <= option_names(
        resumable=False, compared=True, repeated=True
    )


def test_a_run_folder_is_a_config(tmp_path):
    config = default_config("avvp", "han", "mmil")
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({**to_dict(config), "seed": 9, "output_dir": "elsewhere"})
    )
    again = parse(["--config", str(tmp_path)])
    assert again.seed == 9 and again.output_dir is None and again.decoder == "mmil"


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_builds_and_its_name_says_what_it_is(name):
    config = parse(["--preset", name])
    short = name.replace("jomold-estimator", "jomold").replace("dhhn-refined", "dhhn")
    encoder, decoder, task, *suffixes = short.split("-")
    assert (config.decoder, config.task) == (decoder, task)
    assert config.encoder == {
        "valor": "han",
        "valorplus": "han",
        "valorplusplus": "han",
        "dmrn": "ave",
        "ma": "han",
        "jomold": "han",
        "bps": "han",
    }.get(encoder, encoder)
    assert ("weak" in suffixes) == (config.supervision == "weak")
    if "official" in suffixes or (task == "avvp" and "weak" not in suffixes):
        assert getattr(config.decoder_config, "score_gain", None) is None


def test_presets_carry_the_published_recipes():
    config = parse(["--preset", "han-mmil-avvp-weak-official"])
    assert (config.optim, config.schedule) == (RECIPES["han"].optim, RECIPES["han"].schedule)
    assert (config.epochs, config.batch_size) == (40, 16)
    assert preset_options("ave-dch-avel-official")["task_config"]["head_loss"] == "soft_margin"
    paper = parse(["--preset", "han-leap-avvp-paper"])
    assert (paper.decoder_config.form, paper.task_config.avss, paper.epochs) == (
        "paper",
        "paper",
        20,
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--task avle", "unknown task 'avle'; did you mean 'avel'"),
        ("--encoder hna", "unknown encoder 'hna'; did you mean 'han'"),
        ("--decoder lepa", "unknown decoder 'lepa'; did you mean 'leap'"),
        ("--preset han-mmil-avv", "unknown preset 'han-mmil-avv'; did you mean 'han-mmil-avvp'"),
        ("--task avvp --supervision full", "supervision 'full' is not one of avvp's"),
        (
            "--preset han-mmil-avvp --decoder leap",
            "preset han-mmil-avvp is for decoder mmil, not leap",
        ),
        ("--config nothing.yaml", "no configuration at nothing.yaml"),
        ("--task-config.supervision weak", "give --supervision alone"),
        ("--seed 5000000000", "seed is 5000000000"),
        ("--resume nothing", "no such run folder"),
    ],
)
def test_wrong_names_are_refused_with_the_nearest(flags, message, capsys):
    try:
        parse(flags.split())
    except AVError as error:
        assert re.search(message, str(error))
    except SystemExit as error:  # refused while the flags are read
        assert error.code == 2
        assert message.split("'")[0].split(";")[0].split()[-1] in "".join(capsys.readouterr())
    else:
        pytest.fail("not refused")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optm: {lr: 1}", "unknown option 'optm'; did you mean 'optim'"),
        ("optim: {lrr: 1}", "unknown option 'optim.lrr'; did you mean 'lr'"),
        ("optim: 3", "'optim' holds several options"),
        ("epochs: many", "option 'epochs' is 'many'"),
        ("epochs: 0", "epochs is 0; it must be at least 1"),
        ("[1, 2]", "must hold a mapping"),
        ("task: [a]", "it must be a name"),
        ("optim: {betas: [0.9]}", "option 'optim.betas'"),
        ("preset: han-mmil-avvp\nencoder: ave", "preset han-mmil-avvp is for encoder han"),
        ("a: [", "not valid YAML"),
    ],
)
def test_wrong_yaml_is_refused_with_its_place(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(AVError, match=message):
        parse(["--config", str(tmp_path / "x.yaml")])


@pytest.mark.parametrize(
    "flags",
    [
        "--optm.lr 3",
        "--epochs x",
        "--epochs 0",
        "--optim.lr -1",
        "--precision bf17",
        "--select-on tset",
        "--batch-size 0",
    ],
)
def test_wrong_flags_end_with_exit_code_2_and_no_traceback(flags, capsys):
    with pytest.raises((SystemExit, UsageError)) as caught:
        parse(flags.split())
    code = getattr(caught.value, "code", None) or getattr(caught.value, "exit_code", None)
    assert code == 2


def test_errors_become_one_line_and_their_exit_code(capsys):
    assert main(["train", "--task", "avle"]) == 2
    assert main(["train", "--config", "nothing.yaml"]) == 1
    assert main(["nonsense"]) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 3 and "Traceback" not in error


def test_unknown_options_of_the_decoder_are_refused():
    with pytest.raises(
        UsageError, match="unknown option 'decoder_config.bloks'; did you mean 'blocks'"
    ):
        compose(("here", {"decoder_config": {"bloks": 3}}))


def test_help_lists_commands_and_options(capsys):
    assert main(["--help"]) == 0
    assert main(["list", "--json"]) == 0
    found = capsys.readouterr().out
    for word in ("train", "eval", "push", "data", "han-mmil-avvp-weak-official", "leap"):
        assert word in found
    with pytest.raises(SystemExit) as caught:
        main(["train", "--task", "avvp", "--help"], prog="train.py")
    text = capsys.readouterr().out
    assert caught.value.code == 0
    for flag in ("--task", "--encoder", "--decoder", "--supervision", "--data", "--seed",
                 "--epochs", "--max-steps", "--batch-size", "--num-workers", "--optim.lr",
                 "--checkpointing.every", "--output-dir", "--resume", "--streaming",
                 "--preset", "--config", "--cpu", "--dry-run",
                 "--decoder-config.blocks"):  # fmt: skip
        assert flag in text
    with pytest.raises(DataError):
        parse(["--config", "/nowhere"])


def help_text(capsys, *args):
    with pytest.raises(SystemExit) as caught:
        main(["train", *args])
    assert caught.value.code == 0
    return capsys.readouterr().out


def own_options(text):
    return set(re.findall(r"--((?:encoder|decoder|task)-config\.[a-z-]+)", text))


def test_help_shows_the_options_that_the_chosen_cell_reads_and_help_all_shows_all(capsys):
    leap = ("--encoder", "ave", "--decoder", "leap")
    text = help_text(capsys, *leap, "--help")
    of_others = {"pair-weight", "pair-target", "auxiliary-weight", "gate-loss", "head-loss"}
    of_others = {f"task-config.{name}" for name in of_others} | {"decoder-config.classify-queries"}
    assert not of_others & own_options(text)
    assert {"task-config.segment-loss", "decoder-config.form"} < own_options(text)
    assert "--optim.betas" not in text
    every = help_text(capsys, *leap, "--help-all")
    assert of_others | own_options(text) < own_options(every) and "--optim.betas" in every
    assert len(text.splitlines()) < 0.6 * len(every.splitlines())
    hidden = int(re.search(r"--help-all shows (\d+) more", text)[1])
    names = [set(re.findall(r"^\W*?(--[\w.-]+)", page, re.M)) for page in (text, every)]
    assert len(names[1] - names[0]) == hidden and names[0] < names[1]
    assert "task-config.pair-weight" in own_options(help_text(capsys, "--encoder", "psp", "-h"))
    weak = help_text(capsys, *leap, "--supervision", "weak", "--help")
    assert {"task-config.weak-pool"} < own_options(weak) and "avss" not in weak


def test_the_help_hides_nothing_where_the_options_of_a_file_contradict_each_other(capsys, tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("task: avel\ndecoder: leap\ntask_config: {gate_loss: plain}\n")
    assert "--task-config.gate-loss" in help_text(capsys, "--config", str(file), "--help")


def test_train_py_and_the_command_are_the_same_program(tmp_path):
    outputs = []
    for command in (["train.py"], ["-m", "avplatform", "train"]):
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, *command, "--decoder", "lepa"],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
        )
        outputs.append((done.returncode, done.stdout, done.stderr))
    assert outputs[0] == outputs[1] and outputs[0][0] == 2


def test_stale_pair_targets_need_whole_batches_in_one_process(capsys, small_stores):
    flags = [
        "--preset",
        "psp-dch-avel-official",
        "--data",
        str(small_stores["avel"]),
        "--cpu",
        "--accumulation",
        "2",
    ]
    assert main(["train", *flags]) == 2
    assert "use one process and accumulation 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["data", "import"], ["pseudo-label"], ["extract"], ["predict"]]
)
def test_help_names_a_default_once(capsys, command):
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    text = capsys.readouterr().out
    assert "default: " in text and "None)" not in text
