"""The demo as a Space on (a stand-in for) the Hub: pushed whole, and it is the same program."""

import ast

import pytest
import yaml

from avplatform import cli
from avplatform.base.packages import requirements
from avplatform.hub import space
from avplatform.models.av_model import AVModel
from avplatform.models.errors import UsageError
from tests.hub.fake_hub import Failure
from tests.hub.test_failures import failed
from tests.hub.test_hub import WHOLE, client, command, done

PROGRAM = {"README.md", "app.py", "requirements.txt"}


def started(text, tmp_path, monkeypatch):
    """Run app.py as a Space does, and return the arguments of the command that it calls."""
    calls = []
    monkeypatch.setattr(cli, "main", lambda args: calls.append(args) or 0)
    monkeypatch.chdir(tmp_path)
    code = compile(text, "app.py", "exec")
    with pytest.raises(SystemExit) as ended:
        exec(code, {"__name__": "__main__", "__file__": str(tmp_path / "app.py")})
    assert ended.value.code == 0
    return calls[0]


def test_a_model_is_pushed_with_a_space_that_names_it(hub, run, tmp_path, monkeypatch):
    told = done(client(hub, tmp_path, command("push", run, "tester/x", "--with-space")))
    assert f"pushed to {hub.url}/tester/x" in told and f"{hub.url}/spaces/tester/x" in told
    assert set(hub.repos["models/tester/x"].files()) == WHOLE
    files = hub.repos["spaces/tester/x"].files()
    assert set(files) == PROGRAM
    metadata = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert metadata["sdk"] == "gradio" and metadata["app_file"] == "app.py"
    assert metadata["models"] == ["tester/x"]
    assert started(files["app.py"].decode(), tmp_path, monkeypatch) == [
        *("demo", "tester/x", "--host", "0.0.0.0", "--port", "7860", "--weights", "auto")
    ]
    again = done(client(hub, tmp_path, command("push", run, "tester/x", "--with-space")))
    assert again.count("nothing was pushed") == 2


def test_a_model_of_this_machine_travels_with_its_space(hub, run, tmp_path, monkeypatch):
    told = done(client(hub, tmp_path, command("space", "push", run, "tester/demo", "--private")))
    assert f"pushed to {hub.url}/spaces/tester/demo" in told
    repo = hub.repos["spaces/tester/demo"]
    assert repo.private and set(repo.files()) == PROGRAM | {f"models/run/{name}" for name in WHOLE}
    there = tmp_path / "space"
    for name, content in repo.files().items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(content)
    _, name, *_ = started(repo.files()["app.py"].decode(), there, monkeypatch)
    loaded, own = (AVModel.from_pretrained(folder) for folder in (name, run / "model"))
    assert all((a == b).all() for a, b in zip(loaded.parameters(), own.parameters(), strict=True))
    # The model of another push goes, whatever it was called.
    done(client(hub, tmp_path, command("space", "push", "training-free", "tester/demo")))
    assert set(repo.files()) == PROGRAM


def test_a_space_is_pushed_again_after_a_failure_that_passes(hub, tmp_path):
    hub.failures.append(Failure("POST", "/commit/main", 503))
    told = done(client(hub, tmp_path, command("space", "push", "training-free", "tester/x")))
    assert "trying again in 1 s" in told and set(hub.repos["spaces/tester/x"].files()) == PROGRAM
    line = failed(
        client(hub, tmp_path, command("space", "push", "training-free", "tester/y"), token=None)
    )
    assert "log in with `hf auth login`" in line and "spaces/tester/y" not in hub.repos


def test_what_a_space_cannot_serve_is_refused(tmp_path, capsys):
    for flags in (["--results-only"], ["--revision", "second"]):
        assert cli.main(["push", str(tmp_path), "owner/name", "--with-space", *flags]) == 2
        assert "--with-space serves the model on the main branch" in capsys.readouterr().err
    with pytest.raises(UsageError, match="main branch"):
        space.push_space("owner/name", "owner/name", revision="second")


def test_a_space_installs_what_the_demo_needs():
    files = space.space_files("owner/name")
    assert ast.literal_eval(files["app.py"].decode().split("MODELS = ")[1].split("\n")[0]) == [
        "owner/name"
    ]
    from packaging.requirements import Requirement

    wanted = Requirement(files["requirements.txt"].decode().strip())
    assert wanted.name == "avplatform" and wanted.extras == set(space.EXTRAS.split(","))
    (gradio,) = requirements()["demo"]
    assert Requirement(gradio).specifier.contains(space.GRADIO)
    other = space.space_files("owner/name", "avplatform[demo,media] @ https://host/x.whl")
    assert other["requirements.txt"] == b"avplatform[demo,media] @ https://host/x.whl\n"


def test_a_folder_gives_its_name_to_the_model_of_its_space(tmp_path):
    for name in ("my run (2)", "model", ".."):
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "my run (2)" / "model").mkdir()
    assert space.name_of_folder(tmp_path / "my run (2)" / "model") == "my-run-2"
    assert space.name_of_folder("training-free") == ""
