"""genro-storage: the command for whoever wants to know what waits, and to wait for it.

Owns arguments, what is printed and exit codes. What is known of mounts and journals is the library's; nothing in the
library imports this. Needs the extra ``cli``. Threads: the main one, and one for each thing that may never answer.
"""

import sys
from collections.abc import Sequence
from importlib.util import find_spec


def main(arguments: Sequence[str] | None = None) -> int:
    """The command genro-storage. Ends by SystemExit unless what it is made of is not installed."""
    missing = [name for name in ('click', 'rich') if find_spec(name) is None]
    if missing:
        print(  # noqa: T201
            f"genro-storage: needs {' and '.join(missing)}: pip install 'genro-storage[cli]'", file=sys.stderr
        )
        return 2
    from genro_storage.cli.commands import command

    return int(command.main(args=None if arguments is None else list(arguments), prog_name='genro-storage') or 0)
