"""Mounts that refer to others: that none of them is made of itself.

Owns finding a circle and the sentence for it. Pure.
"""

from collections.abc import Mapping, Sequence


def circle_of(parents: Mapping[str, str | None]) -> Sequence[str] | None:
    """The names of a circle of mounts, each referring to the next and the last to the first; None if there is none.

    ``parents``: by mount, what it refers to. One that is not there ends a chain.
    """
    done: set[str] = set()
    for name in parents:
        chain: list[str] = []
        at: str | None = name
        while at is not None and at not in done:
            if at in chain:
                return chain[chain.index(at) :]
            chain.append(at)
            at = parents.get(at)
        done.update(chain)
    return None


def told_circle(circle: Sequence[str]) -> str:
    """The sentence for a circle."""
    return f'mounts refer to each other in a circle: {" → ".join([*circle, circle[0]])}'
