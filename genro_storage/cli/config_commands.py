"""The subcommands about definitions: config check, config show, config schema.

Owns the texts of help and the meaning of exit codes: 0: nothing is wrong; 1: something is, and what; 2: wrong usage.
Threads: the main one.
"""

import itertools
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from genro_storage.config import Source

_EMBEDDED = 'the embedded default'

_CHECK_HELP = """\
Say everything that is wrong with a file of definitions and with what it includes, each with its line and column.

Without FILE, the one that genro-mount would take. It is read and nothing is connected to; with --connect each mount is
asked for its root, all at once, each as long as its 'timeout' allows.

Exit code: 0 if nothing is wrong; 1 if something is, with what was expected and what to do.

\b
Examples:
  genro-storage config check storage.yaml
  genro-storage config check --connect
"""

_SHOW_HELP = """\
Print the definitions as they count, with defaults and variables in their places, and where each comes from.

Without FILE, the one that genro-mount would take. Secrets are masked; a reference to one, such as env:NAME, is shown
and not looked up.

\b
Examples:
  genro-storage config show
  genro-storage config show storage.yaml --json
"""

_SCHEMA_HELP = """\
Print the JSON Schema of a file of definitions, so that editors complete and check it.

\b
Examples:
  genro-storage config schema > storage.schema.json
  # and as the first line of storage.yaml:
  # yaml-language-server: $schema=storage.schema.json
"""


@click.group('config', short_help='Check and show definitions.')
def group() -> None:
    """Check definitions of mounts, show what they amount to, and help editors with them."""


@group.command(help=_CHECK_HELP, short_help='Say everything that is wrong, with line and column.')
@click.argument('file', required=False)
@click.option('--connect', is_flag=True, help='Try each connection too.')
@click.pass_context
def check(context: click.Context, file: str | None, connect: bool) -> None:
    """See _CHECK_HELP."""
    from genro_storage import config
    from genro_storage.cli import connecting
    from genro_storage.cli.text import shown
    from genro_storage.errors import StorageError

    try:
        source = _source(file)
        found, problems = config.check(source)
    except StorageError as error:
        raise click.ClickException(str(error)) from error
    for problem in problems:
        click.echo(shown(str(problem)))
    if not problems:
        click.echo(shown(f'{found.origin}: {_count(len(found.mounts))}, nothing wrong'))
    wrong = bool(problems)
    if connect:
        for answer in connecting.try_all(found.mounts):
            wrong = wrong or not answer.is_reachable
            click.echo(shown(answer.line))
    context.exit(1 if wrong else 0)


@group.command(help=_SHOW_HELP, short_help='Print the definitions as they count, secrets masked.')
@click.argument('file', required=False)
@click.option('--json', 'as_json', is_flag=True, help='Print JSON, for programs, in place of YAML.')
def show(file: str | None, as_json: bool) -> None:
    """See _SHOW_HELP."""
    from genro_storage import config
    from genro_storage.cli.text import shown
    from genro_storage.errors import StorageError

    try:
        found = config.load(_source(file))
    except StorageError as error:
        raise click.ClickException(str(error)) from error
    is_embedded = not isinstance(found.raw, str)
    told = [(_EMBEDDED if is_embedded else found.origins[mount.name], mount.shown()) for mount in found.mounts]
    if as_json:
        click.echo(json.dumps([{'source': source, **definition} for source, definition in told], indent=2))
        return
    import yaml

    for source, definitions in itertools.groupby(told, key=lambda each: each[0]):
        click.echo(shown(f'# from {source}'))
        click.echo(yaml.safe_dump([definition for _, definition in definitions], sort_keys=False), nl=False)


@group.command(help=_SCHEMA_HELP, short_help='Print the JSON Schema of a file of definitions.')
def schema() -> None:
    """See _SCHEMA_HELP."""
    from genro_storage.config.schema import schema as make

    click.echo(json.dumps(make(), indent=2))


def _source(file: str | None) -> 'Source':
    """What ``load`` takes: the named file, or what genro-mount would find."""
    from genro_storage.config import find_configuration

    if file is not None:
        return file
    found = find_configuration(None, os.environ, Path.cwd(), Path.home())
    if found.announcement:
        click.echo(f'genro-storage: {found.announcement}', err=True)
    return found.source


def _count(mounts: int) -> str:
    return f'{mounts} mount' if mounts == 1 else f'{mounts} mounts'
