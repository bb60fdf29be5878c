"""The subcommands: arguments in, exit code out.

Owns the texts of help and the meaning of exit codes: 0: nothing is wrong, or all is committed; 1: something is, and
what; 2: wrong usage. Threads: the main one.
"""

import sys

import click

from genro_storage.cli import config_commands
from genro_storage.config import units

_STATUS_HELP = """\
Say what is mounted, what waits to be uploaded, what failed and why, and how full the cache is.

With MOUNTPOINTs, only of these; otherwise of all trees of this user and of everything that waits, mounted or not.

\b
What waits is
  waiting         acknowledged, safe on the local disk, to be uploaded by itself
  failed          the same, tried in vain; it is tried again
  parked          whoever wrote it was told that it failed: genro-storage sync --retry PATH
  damaged         its record cannot be read; the data are where it says
  not configured  no mount leads to where it belongs any more: it is never sent elsewhere

Exit code: 0 if nothing is wrong; 1 if something failed, is parked, damaged or not configured, or if a mount does not
answer.

\b
Examples:
  genro-storage status
  genro-storage status ~/storage --json
"""

_SYNC_HELP = """\
Upload everything that waits at or below each PATH, and wait until it is committed.

PATH is a file or directory in a mounted tree, or, for a mount that no process serves, 'mount:path' with the
configuration that genro-mount would take.

Exit code: 0 if all is committed; 1 if not, with what is left and why.

\b
Examples:
  genro-storage sync ~/storage
  genro-storage sync --timeout 10m ~/storage/uploads/2026
  genro-storage sync --retry ~/storage/uploads
  genro-storage sync -c storage.yaml uploads:2026
"""


def _seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    try:
        return None if value is None else units.seconds_above_zero(value)
    except ValueError as error:
        raise click.BadParameter(f'{value!r}: expected {error}') from error


@click.group(context_settings={'help_option_names': ['-h', '--help']})
def command() -> None:
    """Look after mounted trees of genro-storage, what waits to be uploaded, and definitions of mounts."""


command.add_command(config_commands.group)


@command.command(help=_STATUS_HELP, short_help='Say what is mounted, what waits and what failed.')
@click.argument('mountpoints', nargs=-1, metavar='[MOUNTPOINT]...')
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object, for programs.')
@click.option('-c', '--config', metavar='FILE', help='The configuration that says what is configured.')
@click.pass_context
def status(context: click.Context, mountpoints: tuple[str, ...], as_json: bool, config: str | None) -> None:
    """See _STATUS_HELP."""
    from genro_storage.cli import report
    from genro_storage.cli.survey import survey

    found = survey(mountpoints, config)
    if as_json:
        click.echo(report.as_json(found))
    else:
        report.show(found)
    context.exit(1 if found.is_wrong else 0)


@command.command(help=_SYNC_HELP, short_help='Upload what waits, and wait for it.')
@click.argument('targets', nargs=-1, required=True, metavar='PATH...')
@click.option('-c', '--config', metavar='FILE', help="The configuration for 'mount:path'.")
@click.option(
    '--timeout',
    metavar='TIME',
    callback=_seconds,
    help='Wait no longer than this, such as 30s or 5m; without it, for ever.',
)
@click.option('--retry', is_flag=True, help='What is parked too.')
@click.pass_context
def sync(
    context: click.Context, targets: tuple[str, ...], config: str | None, timeout: float | None, retry: bool
) -> None:
    """See _SYNC_HELP."""
    from genro_storage.cli.syncing import Sync

    wrong = Sync(config, timeout_s=timeout, retry=retry).run(targets, progress=sys.stderr.isatty())
    for line in wrong:
        click.echo(f'genro-storage: {line}', err=True)
    context.exit(1 if wrong else 0)
