"""All POSIX cases, and the program that runs those of a kind of mount: `posix_table.py TABLE KIND DIRECTORY`.

Each gets a directory of its own, and a line of JSON tells its name and what went wrong, '' if nothing. test_posix.py
runs it so, in a process that may hang, and runs the first table itself over a file system without a kernel.
"""

import json
import os
import sys

from tests.mount import (
    posix_attributes,
    posix_files,
    posix_kernel,
    posix_local,
    posix_names,
    posix_open_names,
    posix_ranges,
    posix_shared,
    posix_space,
)
from tests.mount.calls import OsCalls
from tests.mount.posix import outcome

#: 'calls': over system calls, whoever answers them; 'kernel': with a kernel only.
TABLES = {
    'calls': [
        case for module in (posix_files, posix_open_names, posix_names, posix_attributes) for case in module.CASES
    ],
    'kernel': [
        case for module in (posix_kernel, posix_local, posix_ranges, posix_shared, posix_space) for case in module.CASES
    ],
}


def main(table: str, kind: str, directory: str) -> None:
    """Run the cases of a kind and print how it went."""
    for number, each in enumerate(case for case in TABLES[table] if kind in case.on):
        place = f'{directory}/{number}'
        os.mkdir(place)
        print(json.dumps([each.name, outcome(each, OsCalls(place))]), flush=True)  # noqa: T201


if __name__ == '__main__':
    main(*sys.argv[1:])
