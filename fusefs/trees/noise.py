"""What desktops do to every directory unasked: names that they leave or look for, and programs that read all there is.

Owns which names and programs these are. What becomes of them is said by the definition's ``noise``: what a mount keeps
of such names is Litter's (see litter).

Three kinds of names. *Litter* are files that file managers write beside what they show. *Bins* are directories in which
systems keep what was deleted, and indexes. Neither is ever the backend's in a mount that minds noise: nobody asks it,
and what it has under such a name is not shown there. *Probes* are names that are looked for everywhere and rarely
found; people make them too, so they are files like others, but looking for one costs no more than the listing that
follows.

Threads: safe, without state; /proc is read, which waits for nothing.
"""

import enum
import os

#: In small letters: Windows writes Thumbs.db and thumbs.db. .directory is Dolphin's.
_LITTER = frozenset({'.ds_store', '.apdisk', '.directory', 'desktop.ini', 'ehthumbs.db', 'thumbs.db'})
#: What of a file of macOS does not fit elsewhere (AppleDouble): ._NAME beside NAME.
_APPLE_DOUBLE = '._'

_BINS = frozenset(
    {
        '$recycle.bin',
        '.documentrevisions-v100',
        '.fseventsd',
        '.spotlight-v100',
        '.temporaryitems',
        '.trash',
        '.trashes',
        'system volume information',
    }
)
#: .Trash-UID (freedesktop.org, "The Trash Specification"). A file manager that cannot make it offers to delete.
_BIN_OF_USER = '.trash-'

_PROBES = frozenset(
    {
        '.hidden',
        '.localized',
        '.metadata_never_index',
        '.nomedia',
        '.trackerignore',
        '.xdg-volume-info',
        'autorun.inf',
    }
)

#: Programs that open every file they find, or list every directory, for an index or a picture. By the names of their
#: executables: a thread may call itself something else, and a name of a process (comm) is cut off at 15 letters.
_READERS = frozenset(
    {
        'baloo_file',
        'baloo_file_extractor',
        'localsearch',
        'localsearch-3',
        'localsearch-extractor-3',
        'recollindex',
        'tracker-extract',
        'tracker-extract-3',
        'tracker-miner-fs',
        'tracker-miner-fs-3',
        'tumblerd',
        'updatedb',
        'updatedb.mlocate',
        'updatedb.plocate',
    }
)
#: evince-, ffmpeg, gdk-pixbuf-, glycin-, gsf-office-, papers-, totem-video- …
_THUMBNAILER = ('thumbnailer', 'thumbnailer-static')
#: What proc(5) adds where an update has replaced the program since it was started.
_REPLACED = ' (deleted)'


class NameKind(enum.Enum):
    """What a name is to desktops."""

    LITTER = 'litter'
    BIN = 'bin'
    PROBE = 'probe'


def kind_of(name: str) -> NameKind | None:
    """What a name is to desktops; None of all others."""
    if name[0] not in '.$aAdDeEsStT':
        return None  # nearly all names, and each lookup comes by here
    small = name.lower()
    if small in _LITTER or (name.startswith(_APPLE_DOUBLE) and name != _APPLE_DOUBLE):
        return NameKind.LITTER
    if small in _BINS or small.startswith(_BIN_OF_USER):
        return NameKind.BIN
    return NameKind.PROBE if small in _PROBES else None


def reader_of_everything(pid: int) -> str:
    """The name of the program of a process or thread, if it is one that reads all it finds; '' of all others.

    And where that cannot be seen. Not remembered: to ask is one system call of some microseconds, fewer than it would
    take to know that a number still is of the same process.
    """
    try:
        program = os.path.basename(os.readlink(f'/proc/{pid}/exe')).removesuffix(_REPLACED)
    except OSError:  # of another user's process, of none, and where there is no /proc
        return ''
    return program if program in _READERS or program.endswith(_THUMBNAILER) else ''
