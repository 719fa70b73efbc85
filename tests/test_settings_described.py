"""All that is written of a setting stands with the setting, and the documents and the command are made from it."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
from click.testing import CliRunner
from pydantic import Field

from ichseq import Model
from ichseq.cli import main
from ichseq.config import SECTIONS, STAGES, ModelConfig, load_config
from ichseq.config.describe import with_tables
from ichseq.config.fields import settings_of
from ichseq.config.types_in_words import range_in_words
from ichseq.errors import ConfigError
from ichseq.experiment.spec import Plan

HERE = Path(__file__).parents[1]
DESCRIBED = {**SECTIONS, "experiment": Plan}


@pytest.mark.parametrize("name", DESCRIBED)
def test_every_setting_has_a_meaning(name: str) -> None:
    for setting in settings_of(DESCRIBED[name]):  # those of a section's bases too
        assert len(setting.meaning) > 8, setting.name
        assert setting.meaning.endswith("."), setting.name


@pytest.mark.parametrize(
    ("path", "names"), [("docs/reference.md", [*SECTIONS]), ("experiments/README.md", ["experiment"])]
)
def test_the_tables_of_the_documents_are_made_from_the_settings(path: str, names: list[str]) -> None:
    text = (HERE / path).read_text(encoding="utf-8")
    assert [name for name in DESCRIBED if f"<!-- settings: {name} -->" in text] == names
    assert with_tables(text, DESCRIBED) == text, f"run `ichseq settings --into {path}`"


def test_a_table_is_made_anew() -> None:
    text = "before\n<!-- settings: model -->\nof another time\n<!-- end of settings -->\nafter\n"
    made = with_tables(text, DESCRIBED)
    assert "| `image_size` | int, between 32 and 2048 | `384` |" in made
    assert "of another time" not in made
    assert made.startswith("before\n")
    assert made.endswith("\nafter\n")


def test_the_command_lists_everything_within_100_columns() -> None:
    text = CliRunner().invoke(main, ["settings"]).output
    assert max(map(len, text.splitlines())) <= 100
    for name, section in DESCRIBED.items():
        for setting in settings_of(section):
            assert f"\n{name}.{setting.name} = " in f"\n{text}"
    assert "\nmodel.image_size = 384  (int, between 32 and 2048)\n    Side in pixels" in text
    assert "\ntrain.window = 0  (int, at least 0)\n" in text


def test_the_command_lists_a_section_or_what_a_stage_reads() -> None:
    assert "train." not in CliRunner().invoke(main, ["settings", "model"]).output
    lists = {stage: CliRunner().invoke(main, ["settings", stage]).output for stage in STAGES}
    assert "slice.mixup" in lists["slice"]
    assert "frozen.mixup" not in lists["frozen"]
    assert "frozen.sequence_lr = 0.0001  (float or null, at least 0)" in lists["frozen"]
    result = CliRunner().invoke(main, ["settings", "modle"])
    assert result.exit_code == 1
    assert "no section 'modle'; did you mean 'model'?" in result.output


def test_the_command_writes_tables_into_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.md"
    file.write_text("<!-- settings: augment -->\n<!-- end of settings -->\n")
    assert CliRunner().invoke(main, ["settings", "--into", str(file)]).exit_code == 0
    assert "| `flip` | float, between 0 and 1 | `0.5` |" in file.read_text()
    result = CliRunner().invoke(main, ["settings", "--into", str(tmp_path / "absent.md")])
    assert (result.exit_code, "absent.md: can't be read" in result.output) == (1, True)


def test_the_model_takes_the_fields_of_its_configuration() -> None:
    taken = inspect.signature(Model).parameters
    settings = {setting.name: setting.default for setting in settings_of(ModelConfig)}
    assert {name: parameter.default for name, parameter in taken.items()} == settings
    assert next(iter(taken)) == "backbone"
    kinds = {name: parameter.kind for name, parameter in taken.items()}
    assert kinds.pop("backbone") is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert set(kinds.values()) == {inspect.Parameter.KEYWORD_ONLY}
    assert taken["image_size"].annotation is int
    assert "image_size: Side in pixels" in str(Model.__init__.__doc__)


def test_a_wrong_keyword_of_the_model_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no key model\.image_siz; did you mean 'image_size'\?"):
        Model("test_resnet", image_siz=32)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"model\.image_size is 31; it has to be between 32 and 2048"):
        Model("test_resnet", image_size=31)
    with pytest.raises(ConfigError, match=r"model\.crop is 'head'; choose one of series, slice, none"):
        Model("test_resnet", crop="head")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="too many positional arguments"):
        Model("test_resnet", 32)  # type: ignore[call-arg, arg-type, misc]
    with pytest.raises(TypeError, match="multiple values for argument 'backbone'"):
        Model("test_resnet", backbone="resnet18")  # type: ignore[call-arg, misc]


def test_settings_are_read_without_torch() -> None:
    code = "import sys, ichseq.config, ichseq.config.describe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=100).returncode == 0


def test_both_ends_of_a_range_are_told() -> None:
    ends = [
        ({"gt": 0, "le": 1}, "above 0 and at most 1"),
        ({"gt": 0}, "above 0"),
        ({"ge": 0, "le": 1}, "between 0 and 1"),
    ]
    for limits, words in ends:
        assert range_in_words(Annotated[float, Field(**limits)]) == words
    with pytest.raises(ConfigError, match=r"train\.gradient_share is 1\.5; it has to be above 0 and at most 1"):
        load_config("joint", None, ["train.gradient_share=1.5"])
