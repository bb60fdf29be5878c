"""What several users of one mount may do to each other's files, and what becomes of them: a table of rules.

For a disk, and for a remote mount that keeps modes and owners, with ``allow_other``. Each rule is what root makes in a
directory of mode 0777, what two users do there one after the other, and what it comes to. test_posix_users.py runs it.
"""

from typing import NamedTuple

OTHER_UID, OTHER_GID = 1234, 1235
THIRD_UID, THIRD_GID = 1236, 1237

#: Where these rules hold.
KINDS = ('local', 'memory')


class Rule(NamedTuple):
    """Scripts of root's shell, of two users' Python, and of root's again, which prints what is found then.

    Each line of Python is tried, and errors are those that the lines fail with.
    """

    made: str
    by_other: tuple[str, ...] = ()
    by_third: tuple[str, ...] = ()
    errors: str = ''
    look: str = 'stat -c %a p'
    found: str = ''


#: Of one user, with all set-id bits; and one whose group may not execute it, so that set-group-id is no right.
_PROGRAM = f'echo program > p; chown {OTHER_UID}:{OTHER_GID} p; chmod 6777 p'
_LOCKING = f'{_PROGRAM}; chmod 6767 p'
_WRITE, _TRUNCATE = ("open('p', 'a').write('more')",), ("os.truncate('p', 1)",)
_REPLACE, _CHOWN = ("open('p', 'w').close()",), ("os.chown('p', -1, -1)",)

RULES = {
    'a write takes set-id bits away': Rule(_PROGRAM, (), _WRITE, found='777'),
    'a truncation takes them away': Rule(_PROGRAM, (), _TRUNCATE, found='777'),
    'an open that truncates takes them away': Rule(_PROGRAM, (), _REPLACE, found='777'),
    'their owner loses them too': Rule(_PROGRAM, _REPLACE, found='777'),
    'who gives his file to nobody loses them': Rule(_PROGRAM, _CHOWN, found='777'),
    'who is in the group keeps set-group-id that is no right': Rule(_LOCKING, _WRITE, found='2767'),
    'who truncates it keeps it too': Rule(_LOCKING, _TRUNCATE, found='2767'),
    'who is not in the group does not': Rule(_LOCKING, (), _WRITE, found='767'),
    'root gives a file away and such a bit stays': Rule(f'{_LOCKING}; chown {THIRD_UID} p', found='2767'),
    'nobody gives his file away, or changes what is not his': Rule(
        _PROGRAM,
        (f"os.chown('p', {THIRD_UID}, -1)",),
        ("os.chmod('p', 0)", "os.utime('p', (1, 1))"),
        'EPERM EPERM EPERM',
        found='6777',
    ),
    'a sticky directory is for owners': Rule(
        'mkdir s; chmod 1777 s',
        ("open('s/f', 'x').close()", "os.mkdir('s/d')", "open('s/mine', 'x').close()", "os.rename('s/mine', 's/kept')"),
        (
            "open('s/his', 'x').close()",
            "os.unlink('s/f')",
            "os.rmdir('s/d')",
            "os.rename('s/f', 's/g')",
            "os.rename('s/his', 's/f')",
        ),
        'EPERM EPERM EPERM EPERM',
        'ls s; stat -c %u:%g s/f s/his',
        f'd f his kept {OTHER_UID}:{OTHER_GID} {THIRD_UID}:{THIRD_GID}',
    ),
    'who owns a sticky directory removes what is in it': Rule(
        f'mkdir s; chmod 1777 s; chown {OTHER_UID} s; echo > s/f', ("os.unlink('s/f')",), look='ls s'
    ),
    'what is made has the group of a directory that gives it': Rule(
        f'mkdir s; chgrp {THIRD_GID} s; chmod 2777 s',
        ('os.umask(0)', "os.mkdir('s/d', 0o755)", "os.close(os.open('s/d/f', os.O_CREAT, 0o640))"),
        look='stat -c %a:%u:%g s/d s/d/f',
        found=f'2755:{OTHER_UID}:{THIRD_GID} 640:{OTHER_UID}:{THIRD_GID}',
    ),
    'a directory without search hides, and without write it stays as it is': Rule(
        'mkdir x w; echo > x/f; echo > w/f; chmod 766 x; chmod 755 w',
        ("os.stat('x/f')", "os.unlink('w/f')", "os.mkdir('w/d')", "os.rename('w/f', 'g')"),
        (),
        'EACCES EACCES EACCES EACCES',
        'ls x w',
        'w: f x: f',
    ),
    'what may be executed need not be readable': Rule(
        'cp /bin/true p; chmod 711 p',
        ("os.spawnl(os.P_WAIT, 'p', 'p') and print('failed')", "open('p')"),
        (),
        'EACCES',
        found='711',
    ),
}
