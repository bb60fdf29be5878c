"""References to the environment: the syntax, and that nothing else is touched."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genro_storage.config.interpolation import InterpolationError, copied, interpolate, interpolate_value, is_literal

ENVIRON = {'HOST': 'example.org', 'EMPTY': '', 'TRICKY': '${HOST}', '_x1': 'under'}


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('plain', 'plain'),
        ('${HOST}', 'example.org'),
        ('https://${HOST}/${_x1}', 'https://example.org/under'),
        ('${PORT:-9000}', '9000'),
        ('${HOST:-localhost}', 'example.org'),
        ('${EMPTY}', ''),
        ('${EMPTY:-full}', 'full'),
        ('${PORT:-}', ''),
        ('${PORT:-a:-b}', 'a:-b'),
        ('${PORT:-$$1$2}', '$1$2'),
        ('$${HOST}', '${HOST}'),
        ('$$$$', '$$'),
        ('$$${HOST}', '$example.org'),
        ('5$ and $HOST', '5$ and $HOST'),
        ('${TRICKY}', '${HOST}'),
    ],
)
def test_references_are_resolved(text: str, expected: str) -> None:
    assert interpolate(text, ENVIRON) == expected


def test_an_unset_variable_is_named() -> None:
    with pytest.raises(InterpolationError, match=r"environment variable 'PORT' is not set.*\$\{PORT:-"):
        interpolate('x${PORT}', ENVIRON)


@pytest.mark.parametrize('text', ['${', 'top-secret${', '${}', '${1A}', '${A-B}', '${A:b}', '${A:-${B}}', '${HOST'])
def test_a_broken_reference_is_an_error_that_shows_none_of_the_text(text: str) -> None:
    with pytest.raises(InterpolationError) as caught:
        interpolate(text, ENVIRON)
    assert 'secret' not in str(caught.value)
    assert '$$' in str(caught.value)


def test_containers_are_resolved_into_new_ones() -> None:
    value = {'hosts': ['${HOST}', {'again': '${HOST}'}], 'n': 1, 'b': True, '${HOST}': None}
    resolved = interpolate_value(value, ENVIRON)
    assert resolved == {
        'hosts': ['example.org', {'again': 'example.org'}],
        'n': 1,
        'b': True,
        '${HOST}': None,
    }
    assert copied(value) == value
    assert copied(value) is not value


def test_a_list_inside_itself_is_an_error() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(InterpolationError, match='levels deep'):
        interpolate_value(endless, {})


@pytest.mark.parametrize(
    ('text', 'literal'),
    [
        ('hunter2', True),
        ('${PASSWORD}', False),
        ('Bearer ${TOKEN}', False),
        ('${PASSWORD:-}', False),
        ('${PASSWORD:-hunter2}', True),
        ('$${PASSWORD}', True),
        ('', False),
    ],
)
def test_what_is_not_named_by_a_variable_is_literal(text: str, literal: bool) -> None:
    assert is_literal(text) is literal


@settings(deadline=None)
@given(st.text())
def test_escaped_text_comes_back_as_it_was(text: str) -> None:
    assert interpolate(text.replace('$', '$$'), {}) == text


@settings(deadline=None)
@given(st.text(alphabet='${}:-AB1'), st.dictionaries(st.sampled_from(['A', 'B', 'AB']), st.text(alphabet='ab$')))
def test_any_text_is_resolved_or_refused(text: str, environ: dict[str, str]) -> None:
    try:
        assert isinstance(interpolate(text, environ), str)
    except InterpolationError:
        assert '${' in text


def test_many_dollars_in_an_unclosed_default_take_no_time() -> None:
    with pytest.raises(InterpolationError):
        interpolate('${A:-' + '$' * 100_000, {})
