"""A mounted tree and the Python API in one process, which does as it is told: a helper of test_invalidation.

Arguments: a configuration file and a mountpoint. Prints 'ready'; then evaluates a line after the other of its standard
input, in which 'storage' is the StorageManager, and prints what it gives, or 'failed' and why.
"""
# ruff: noqa: T201 - a program that prints

import json
import sys
import threading
from pathlib import Path

from fusefs.daemon import log_to_terminal
from fusefs.session import Session
from fusefs.transports.options import MountOptions
from genro_storage import StorageManager


def main() -> int:
    log_to_terminal()
    storage = StorageManager()
    storage.configure(json.loads(Path(sys.argv[1]).read_text())['mounts'])
    session = Session(storage, Path(sys.argv[2]), MountOptions())

    def obey() -> None:
        print('ready', flush=True)
        for line in sys.stdin:
            try:
                print(repr(eval(line, {'storage': storage})), flush=True)
            except Exception as error:  # noqa: BLE001 - the test shows it
                print(f'failed: {type(error).__name__}: {error}', flush=True)
        session.stop()

    session.serve(lambda: threading.Thread(target=obey, daemon=True).start())
    return 0


if __name__ == '__main__':
    sys.exit(main())
