"""The command line: quick help, and one line for whatever a user gets wrong."""

import hashlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from dicom_files import write_series

import ichseq
from ichseq.cli import main
from ichseq.cli.group import Group, progress_bar
from ichseq.cli.options import FoldType
from ichseq.errors import RunError

ROAD = ["demo", "phantom", "prepare", "train", "evaluate", "calibrate", "predict", "report"]
COMMANDS = [*ROAD, "models", "publish", "export", "compare", "ensemble", "submit", "experiment", "settings"]


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from ichseq.cli import main\n"
        f"for command in [[], *([name] for name in {COMMANDS!r})]:\n"
        "    assert main([*command, '--help'], standalone_mode=False) == 0, command\n"
        "assert not {'torch', 'timm', 'numpy', 'pydantic', 'yaml'} & set(sys.modules), 'help is to be quick'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage:") == 1 + len(COMMANDS)
    assert list(main.commands) == COMMANDS


def test_help_lists_the_road_in_its_order_a_line_each() -> None:
    """In a terminal of 80 columns, no summary is cut off."""
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout
    lines = shown.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == COMMANDS
    assert all(len(line) <= 80 and line.endswith(".") and not line.endswith("...") for line in lines), shown


def test_an_option_has_the_default_of_the_function() -> None:
    """Each is stated once: what a command does without options is what its function does without arguments."""
    required = {"prepare": ["scans"], "predict": ["scans"], "calibrate": ["--run", "runs/first"]}
    for name in ("prepare", "train", "evaluate", "calibrate", "predict"):
        command, arguments = main.commands[name], inspect.signature(getattr(ichseq, name)).parameters
        given = command.make_context(name, required.get(name, [])).params
        shared = {option for option in given if option in arguments and option not in ("source", "run")}
        assert len(shared) >= 3
        assert {option: str(given[option]) for option in shared} == {
            option: str(arguments[option].default) for option in shared
        }


@pytest.mark.parametrize(("given", "expected"), [("3", 3), ("all", "all"), ("all-patients", "all-patients")])
def test_a_fold_is_a_number_or_a_word(given: str, expected: int | str) -> None:
    assert FoldType().convert(given, None, None) == expected
    for wrong in ("-1", "one", "", "1.5", "²"):
        with pytest.raises(click.BadParameter, match="no fold; give a number, all or all-patients"):
            FoldType().convert(wrong, None, None)


CASES = [
    (["train", "--data", "{set}", "--fold", "7"], "fold 7 does not exist"),
    (["evaluate", "--data", "{set}", "--fold", "7"], "fold 7 does not exist"),
    (["evaluate", "--data", "{set}", "--fold", "all-patients", "--run", "{tmp}/absent"], "absent: no such run"),
    (["train", "--data", "{tmp}/absent"], "absent"),
    (["evaluate", "--data", "{tmp}/absent"], "absent"),
    (["train", "--data", "{set}", "--set", "train.epoch=3"], "did you mean 'epochs'?"),
    (["train", "--data", "{set}", "-c", "{tmp}/absent.yaml"], "absent.yaml"),
    (["train", "--data", "{set}", "--set", "model.backbone=resnet5O", "--set", "model.pretrained=false"], "resnet5O"),
    (["train", "--data", "{set}", "--init", "{tmp}/absent"], "absent: no such run"),
    (["train", "--data", "{set}", "--resume", "-o", "{tmp}/absent"], "nothing to resume"),
    (["evaluate", "--data", "{set}", "--run", "{tmp}/absent"], "absent: no such run"),
    (["calibrate", "--run", "{tmp}/absent"], "absent: no such run"),
    (["calibrate", "--run", "{tmp}/absent", "--data", "{tmp}/absent"], "absent: no prepared set"),
    (["predict", "{set}", "--run", "{tmp}/absent", "--calibrated"], "absent: no such run"),
    (["predict", "{set}", "--run", "{tmp}/absent", "--calibrated", "--point", "best"], "no operating point 'best'"),
    (["predict", "{set}", "--run", "{tmp}/absent"], "absent: no such run"),
    (["predict", "{set}", "--run", "{tmp}/absent", "-o", "{tmp}"], "is a folder; name a file"),
    (["predict", "{set}", "--run", "{tmp}/absent", "-o", "."], ".: is a folder; name a file"),
    (["predict", "{set}", "--run", "{tmp}/absent", "-o", "{tmp}/exams.csv"], "exams.csv: tables of exams"),
    (["prepare", "{tmp}/texts", "-o", "{tmp}/new"], "texts"),
    (["prepare", "{tmp}/absent", "-o", "{tmp}/new"], "absent"),
]


@pytest.mark.parametrize(("command", "words"), CASES)
def test_a_mistake_is_one_line(
    command: list[str], words: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no picture")
    result = CliRunner().invoke(main, [part.format(set=prepared, tmp=tmp_path) for part in command])
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    assert "unexpected" not in result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, result.stderr
    assert result.stderr.rstrip().endswith(errors[0])
    assert words in errors[0]


@pytest.mark.parametrize(
    "command",
    [
        ["predict"],
        ["trian"],
        ["train", "--stage", "jiont"],
        ["train", "--fold", "one"],
        ["evaluate", "--fold", "x"],
        ["prepare", "--no-such"],
    ],
)
def test_usage_errors_are_2(command: list[str]) -> None:
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_prepare_is_stopped_and_goes_on(
    phantoms: Path, prepared: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "set"
    command = [sys.executable, "-m", "ichseq", "prepare", str(phantoms), "-o", str(out), "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not any(out.glob("store/*/*.b2nd")):
        time.sleep(0.001)
    process.send_signal(number)
    words = process.communicate(timeout=60)[1]
    assert process.returncode == code, words
    assert words.rstrip().endswith("stopped; what was read is kept: run the same command again to go on")
    assert "Traceback" not in words
    kept = set(out.glob("store/*/*.b2nd"))
    times = {path: path.stat().st_mtime_ns for path in kept}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == times[path] for path in kept)
    for path in prepared.rglob("*"):
        if path.is_file() and "embeddings" not in path.parts:
            again = out / path.relative_to(prepared)
            assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(path.read_bytes()).digest(), again


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            ["predict", "{raw}", "-o", "{tmp}/t.csv"],
            "stopped; the tables are not written, or not both, or not the report",
        ),
        (["evaluate", "--data", "{set}"], "stopped; what was scored until then is written, the rest is not"),
    ],
)
def test_what_a_stopped_command_says_is_true(
    command: list[str], words: str, phantoms: Path, prepared: Path, run_copy: Path, tmp_path: Path
) -> None:
    given = [part.format(raw=phantoms, set=prepared, tmp=tmp_path) for part in command]
    for _ in range(5):  # on a busy machine the command may end before the signal comes
        process = subprocess.Popen(
            [sys.executable, "-m", "ichseq", *given, "--run", str(run_copy)],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stderr is not None
        shown = b""
        while f"{command[0]}:".encode() not in shown:  # the progress bar
            shown += process.stderr.read(1) or pytest.fail(shown.decode())
        process.send_signal(signal.SIGINT)
        shown += process.communicate(timeout=60)[1]
        if process.returncode != 0:
            break
    assert process.returncode == 130, shown
    assert shown.decode().rstrip().endswith(f"{words}: run the same command again")
    assert not list(tmp_path.rglob("*.part"))


def test_an_error_that_native_code_makes_of_a_stop_is_a_stop(capfd: pytest.CaptureFixture[str]) -> None:
    group = Group("ichseq", params=[click.Option(["--debug"], is_flag=True)])

    @group.command("predict")
    def interrupted() -> None:
        with progress_bar("predict", "series"):
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                raise RunError("its model is damaged") from None

    with pytest.raises(SystemExit) as stop:
        group.main(["predict"], standalone_mode=True)
    assert stop.value.code == 143
    words = capfd.readouterr().err
    assert "stopped; the tables are not written" in words
    assert "damaged" not in words


def test_an_experiment_that_is_stopped_says_how_it_goes_on(prepared: Path, tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text("model: {backbone: test_resnet, pretrained: false, image_size: 64}\nslice: {epochs: 500}\n"
                    "experiment: {stages: [slice], folds: [0]}")  # fmt: skip
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "ichseq", "experiment", str(file), "--data", str(prepared), "--runs", str(runs)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while process.poll() is None and not any(runs.glob("slice-*/slice/fold0/history.csv")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    shown = process.communicate(timeout=60)[1]
    assert process.returncode == 130, shown
    assert shown.rstrip().endswith("long: stopped, saved; run the same command again to go on")


def test_prepare_takes_a_range_of_hounsfield_units_and_says_what_is_none(tmp_path: Path) -> None:
    write_series(tmp_path / "scans", range(1, 4))
    command = ["prepare", str(tmp_path / "scans"), "--folds", "1", "--workers", "1", "-o"]
    for name, options in (("plain", []), ("wide", ["--hu-range", "-1024,2000"]), ("bone", ["--bone"])):
        done = CliRunner().invoke(main, [*command, str(tmp_path / name), *options])
        assert done.exit_code == 0, done.output
    kept = [json.loads((tmp_path / name / "index.json").read_text())["hu_range"] for name in ("plain", "wide", "bone")]
    assert kept == [[-200, 823], [-1024, 2000], [-1024, 3071]]
    for text in ("-1024", "-1024,3071,1", "low,high", "-1024.5,3071"):
        done = CliRunner().invoke(main, [*command, str(tmp_path / "no"), "--hu-range", text])
        assert done.exit_code == 2
        assert f"'{text}' is no range; give two whole numbers" in done.output
    again = CliRunner().invoke(main, [*command, str(tmp_path / "wide")])
    assert again.exit_code == 1
    assert "keeps -1024 to 2000 HU, not -200 to 823; prepare it with --hu-range -1024,2000" in again.output
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("locale", [{}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=["POSIX", "ASCII"])
def test_names_with_other_letters_need_no_locale_that_has_them(locale: dict[str, str], tmp_path: Path) -> None:
    source, out = tmp_path / "Sch\u00e4del \u03b1", tmp_path / "Me\u00dfreihe"
    write_series(source, range(1, 4))
    (source / "\u00fc").write_bytes(b"text")
    command = [sys.executable, "-m", "ichseq", "prepare", str(source), "-o", str(out), "--folds", "1", "--workers", "1"]
    known = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF8"))}
    done = subprocess.run(command, capture_output=True, timeout=600, env={**known, "LC_ALL": "POSIX", **locale})
    assert done.returncode == 0, done.stderr
    assert out.name.encode() in done.stdout
    assert (out / "series.parquet").is_file()
