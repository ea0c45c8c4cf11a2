"""What a release and a forge read: workflows, issue forms, the citation and the list of changes."""

import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from avplatform.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
FORMS = [ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml" for name in ("bug", "feature")]
CITATION_KEYS = {"cff-version", "message", "title", "authors"}
CHANGE_KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def read(file):
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_the_workflows_are_those_of_the_checks_and_of_a_release():
    assert [file.name for file in WORKFLOWS] == ["ci.yml", "release.yml"]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_a_workflow_is_whole_and_runs_scripts_that_exist(file):
    workflow = read(file)
    # A bare "on" is the truth value in YAML 1.1, which this reader follows.
    assert {"name", True, "jobs", "permissions"} <= set(workflow)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["runs-on"] and job["steps"]
        assert set(job.get("needs", "").split()) <= set(workflow["jobs"])
    scripts = []
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step), step
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step["uses"])
        scripts += re.findall(r"(?:^|\s)(\.ci/\w+)", step.get("run", ""))
    assert scripts
    for script in scripts:
        assert (ROOT / script).is_file() and os.access(ROOT / script, os.X_OK), script


def test_every_push_runs_the_same_checks_as_a_developer():
    workflow = read(ROOT / ".github" / "workflows" / "ci.yml")
    assert [step["run"] for step in steps(workflow) if "run" in step] == [".ci/run"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for version in workflow["jobs"]["run"]["strategy"]["matrix"]["python"]:
        assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_a_release_publishes_what_was_tried_and_stores_no_password():
    file = ROOT / ".github" / "workflows" / "release.yml"
    workflow, jobs = read(file), read(file)["jobs"]
    assert list(workflow[True]) == ["release"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["needs"] == "build" and jobs["publish"]["environment"]
    tried, kept, taken, published = (
        *(step for step in jobs["build"]["steps"] if step.get("run", "").startswith(".ci/wheel")),
        *(step for step in jobs["build"]["steps"] if "upload-artifact" in step.get("uses", "")),
        *jobs["publish"]["steps"],
    )
    folder = tried["run"].split()[1]
    assert {kept["with"]["path"], taken["with"]["path"]} == {f"{folder}/"}
    assert kept["with"]["name"] == taken["with"]["name"]
    assert published["uses"].startswith("pypa/gh-action-pypi-publish@") and "with" not in published
    text = file.read_text(encoding="utf-8")
    assert "secrets." not in text and "password:" not in text
    # What strangers write, such as a tag's name, reaches a script through a variable only.
    assert not [step for step in steps(workflow) if "${{" in step.get("run", "")]


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.name)
def test_an_issue_form_asks_for_what_doctor_prints(file):
    form = read(file)
    assert {"name", "description", "body"} <= set(form)
    names = [part["id"] for part in form["body"]]
    assert len(names) == len(set(names))
    for part in form["body"]:
        assert part["type"] == "textarea" and part["attributes"]["label"]
    asked = " ".join(part["attributes"]["label"] for part in form["body"])
    assert "`avplatform doctor`" in asked and "doctor" in COMMANDS
    relative = file.relative_to(ROOT).as_posix()
    assert f"({relative})" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_citation_has_what_the_format_needs_and_says_what_the_package_says():
    citation = read(ROOT / "CITATION.cff")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(citation) >= CITATION_KEYS and citation["cff-version"] == "1.2.0"
    optional = {"type", "abstract", "license", "keywords"}
    assert set(citation) <= CITATION_KEYS | optional and citation["type"] == "software"
    assert citation["license"] == project["license"] and project["name"] in citation["title"]
    assert citation["authors"] and all(set(author) == {"name"} for author in citation["authors"])
    assert "authors" not in project  # names would have to agree


def test_the_list_of_changes_has_its_form():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *released = re.findall(r"^## (.*)$", text, flags=re.M)
    assert first == "[Unreleased]"
    dated = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", name) for name in released]
    assert all(dated)
    versions = [tuple(map(int, match.groups())) for match in dated if match]
    assert versions == sorted(versions, reverse=True)
    kinds = re.findall(r"^### (.*)$", text, flags=re.M)
    assert kinds and set(kinds) <= CHANGE_KINDS
