"""The command that lists all settings. What is heavy is imported inside it."""

from pathlib import Path

import click

from ichseq.cli.options import PATH


@click.command()
@click.argument("section", required=False)
@click.option("--into", type=PATH, help="Write the tables of settings of this Markdown file anew, between their marks.")
def settings(section: str | None, into: Path | None) -> None:
    """List every setting with its default, range and meaning.

    SECTION is model, train, augment or experiment; or a stage's name, for what that stage reads of train.
    """
    from ichseq.config import SECTIONS, STAGES, did_you_mean
    from ichseq.config.describe import settings_text, with_tables
    from ichseq.errors import ConfigError
    from ichseq.experiment.spec import Plan
    from ichseq.files import write_text

    sections = {**SECTIONS, "experiment": Plan}
    if into is not None:
        try:
            write_text(into, with_tables(into.read_text(encoding="utf-8"), sections))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{into}: can't be read and written ({type(error).__name__}); name a Markdown file "
                              "that is there") from None  # fmt: skip
        return
    if section in STAGES:
        click.echo(settings_text(section, SECTIONS["train"], stage=section))
        return
    if section is not None and section not in sections:
        raise ConfigError(f"no section {section!r}; {did_you_mean(section, [*sections, *STAGES])}")
    chosen = sections if section is None else {section: sections[section]}
    click.echo("\n\n".join(settings_text(name, kind) for name, kind in chosen.items()))
