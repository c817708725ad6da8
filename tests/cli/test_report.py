"""The command ``report`` as a user meets it: exact texts, exit codes, files."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.report import synthetic

TINY = [
    "--set",
    "problem.hidden=3",
    "--set",
    "problem.latent=2",
    "--set",
    "evaluation_samples=160",
    "--steps",
    "6",
]


def size(path):
    return f"{Path(path).stat().st_size / 1e6:.1f} MB"


def test_a_run_from_training_to_its_page(cli):
    _, out, _ = cli("train", "mixture8", *TINY, "--out", "run")
    assert out.endswith("\nreport: saddlepoint report run\n")
    cli("evaluate", "run")
    cli("diagnose", "run", "--spectrum")
    code, out, err = cli("report", "run")
    assert (code, out, err) == (
        0,
        f"{size('run/report.html')}, open it in a browser: run/report.html\n",
        "",
    )
    page = Path("run/report.html").read_text()
    assert "Finished after 6 steps" in page
    assert " Run <code>saddlepoint" not in page.split("<script")[0]  # nothing is missing
    for part in (
        "modes with at least one sample within 3σ",
        "Shaded: healthy range of the loss",
        'id="spectrum"',
        "Metrics with intervals",
    ):
        assert part in page


def test_a_comparison_into_a_file_of_one_s_choice(cli, tmp_path):
    synthetic.comparison(tmp_path / "made", problems=("digits",))
    for what in ("made", "made/comparison.json"):
        assert cli("report", what, "-o", "page.html") == (
            0,
            f"{size('page.html')}, open it in a browser: page.html\n",
            "",
        )
    assert not Path("made/report.html").exists()
    assert cli("report", "made/comparison.json")[0] == 0
    assert Path("made/report.html").read_bytes() == Path("page.html").read_bytes()


@pytest.mark.parametrize("what", ["nowhere", "."])
def test_neither_a_run_nor_a_comparison(cli, what):
    text = (
        f"Error: {what} is neither a run (no config.yaml) nor a comparison (no comparison.json). "
        "Give the directory that `saddlepoint train` or `saddlepoint compare` printed.\n"
    )
    assert cli("report", what) == (2, "", text)


def test_a_damaged_file_leaves_no_page(cli, tmp_path):
    path = synthetic.run(tmp_path / "run")
    (path / "summary.json").write_text('{"status":')
    code, out, err = cli("report", "run")
    assert (code, out) == (2, "")
    assert err.startswith("Error: run/summary.json is not JSON: ")
    assert not Path("run/report.html").exists()


def test_a_place_that_cannot_be_written(cli, tmp_path):
    synthetic.run(tmp_path / "run")
    text = (
        "Error: Cannot write no/such/page.html: No such file or directory. Choose another file with"
        " -o.\n"
    )
    assert cli("report", "run", "-o", "no/such/page.html") == (2, "", text)
    code, _, err = cli("report", "run", "-o", "run")
    assert (code, err) == (
        2,
        "Error: Cannot write run: Is a directory. Choose another file with -o.\n",
    )


def test_the_command_needs_no_torch(tmp_path):
    path = synthetic.run(tmp_path / "run")
    script = (
        "import sys\nfrom saddlepoint.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    for arguments in (["report", "--help"], ["report", str(path)]):
        subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True)
