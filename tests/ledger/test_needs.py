"""Jobs that need others: they start after these are finished, and fail with them."""

import pytest

from avplatform.base.console import Console
from avplatform.sweeps.runner import Job, run_jobs

QUIET = Console(enabled=False)


def job(folder, name, needs=(), *, works=True):
    """A job that writes a file with the names of the files that were there when it began."""
    file = folder / f"{name}.txt"
    code = (
        "import pathlib, sys\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "there = sorted(p.stem for p in folder.glob('*.txt'))\n"
        f"sys.exit(3) if not {works} else None\n"
        f"(folder / '{name}.txt').write_text(' '.join(there))\n"
    )
    return Job(name=name, command=lambda: ["-c", code], done=file.is_file, needs=tuple(needs))


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_job_starts_after_those_that_it_needs(tmp_path, parallel):
    jobs = [job(tmp_path, "last", ["middle"]), job(tmp_path, "middle", ["first"])]
    jobs.append(job(tmp_path, "first"))
    outcome = run_jobs(jobs, logs=tmp_path / "logs", parallel=parallel, console=QUIET)
    assert outcome.finished == ["first", "middle", "last"] and not outcome.failed
    assert (tmp_path / "last.txt").read_text() == "first middle"
    again = run_jobs(jobs, logs=tmp_path / "logs", parallel=parallel, console=QUIET)
    assert sorted(again.skipped) == ["first", "last", "middle"] and not again.finished


def test_jobs_fail_with_what_they_need_and_the_others_go_on(tmp_path):
    jobs = [
        job(tmp_path, "bad", works=False),
        job(tmp_path, "after", ["bad"]),
        job(tmp_path, "later", ["after"]),
        job(tmp_path, "other"),
    ]
    outcome = run_jobs(jobs, logs=tmp_path / "logs", parallel=1, console=QUIET)
    assert outcome.finished == ["other"] and list(outcome.failed) == ["bad", "after", "later"]
    assert outcome.failed["later"] == "a run that it needs did not finish"
