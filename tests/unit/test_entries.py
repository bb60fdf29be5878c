"""What is remembered of names, for how long, and what is not believed."""

import pytest

from genro_storage.cache import entries
from genro_storage.cache.entries import EntryCache, Known
from genro_storage.entry import Entry, Kind, Version
from genro_storage.testing import ManualClock

TTL_S = 10.0


def file(name: str, size_bytes: int = 1) -> Entry:
    return Entry(name, Kind.FILE, size_bytes)


def directory(name: str) -> Entry:
    return Entry(name, Kind.DIRECTORY)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def cache(clock: ManualClock) -> EntryCache:
    return EntryCache(TTL_S, clock)


def names(cache: EntryCache, path: str) -> set[str] | None:
    listed = cache.list_directory(path)
    return None if listed is None else {entry.name for entry in listed[0]}


def entry_of(cache: EntryCache, path: str) -> Entry | str | None:
    known = cache.find(path)
    return 'unknown' if known is None else known.entry


class TestTimeToLive:
    def test_an_answer_is_believed_for_its_ttl(self, cache: EntryCache, clock: ManualClock) -> None:
        assert cache.learn('a', file('a'), cache.asking()) == TTL_S
        clock.advance(4)
        assert cache.find('a') == Known(file('a'), 6.0)
        clock.advance(6)
        assert cache.find('a') is None

    def test_an_absence_is_an_answer_too(self, cache: EntryCache, clock: ManualClock) -> None:
        cache.learn('a', None, cache.asking())
        assert cache.find('a') == Known(None, TTL_S)
        clock.advance(TTL_S)
        assert cache.find('a') is None

    def test_an_answer_is_as_old_as_its_question(self, cache: EntryCache, clock: ManualClock) -> None:
        asked = cache.asking()
        clock.advance(4)
        assert cache.learn('a', file('a'), asked) == 6.0
        assert cache.find('a') == Known(file('a'), 6.0)
        assert cache.learn_listing('d', [file('b')], asked) == 6.0
        clock.advance(7)
        assert cache.find('a') is None
        assert cache.learn('a', file('a'), asked) == 0.0
        assert cache.learn_listing('d', [file('b')], asked) == 0.0
        assert cache.find('a') is None
        assert cache.list_directory('d') is None

    def test_a_listing_is_believed_for_its_ttl(self, cache: EntryCache, clock: ManualClock) -> None:
        cache.learn_listing('d', [file('a')], cache.asking())
        clock.advance(4)
        assert cache.list_directory('d') == ([file('a')], 6.0)
        clock.advance(6)
        assert cache.list_directory('d') is None
        assert cache.find('d/a') is None

    def test_nothing_is_believed_without_a_ttl(self, clock: ManualClock) -> None:
        cache = EntryCache(0.0, clock)
        cache.learn('a', file('a'), cache.asking())
        cache.learn_listing('', [file('a')], cache.asking())
        assert cache.find('a') is None
        assert cache.list_directory('') is None

    def test_for_ever(self, clock: ManualClock) -> None:
        cache = EntryCache(float('inf'), clock)
        cache.learn('a', file('a'), cache.asking())
        clock.advance(1e9)
        assert cache.find('a') == Known(file('a'), float('inf'))


class TestListings:
    def test_a_listing_fills_stats_and_absences(self, cache: EntryCache) -> None:
        cache.learn_listing('d', [file('a'), directory('b')], cache.asking())
        assert entry_of(cache, 'd/a') == file('a')
        assert entry_of(cache, 'd/b') == directory('b')
        assert entry_of(cache, 'd/c') is None
        assert entry_of(cache, 'd/b/x') == 'unknown'
        assert entry_of(cache, 'd') == 'unknown'

    def test_a_listing_replaces_what_a_stat_said(self, cache: EntryCache) -> None:
        cache.learn('a', file('a', 1), cache.asking())
        cache.learn_listing('', [file('a', 2)], cache.asking())
        assert entry_of(cache, 'a') == file('a', 2)

    def test_a_later_stat_is_believed_before_the_listing(self, cache: EntryCache, clock: ManualClock) -> None:
        cache.learn_listing('', [file('a', 1)], cache.asking())
        clock.advance(5)
        cache.learn('a', file('a', 2), cache.asking())
        assert cache.find('a') == Known(file('a', 2), TTL_S)

    def test_the_root_is_in_no_listing(self, cache: EntryCache) -> None:
        cache.learn_listing('', [file('a')], cache.asking())
        assert cache.find('') is None

    def test_our_own_changes_are_followed(self, cache: EntryCache, clock: ManualClock) -> None:
        cache.learn_listing('d', [file('a')], cache.asking())
        cache.changed('d/b', file('b'), cache.asking())
        assert names(cache, 'd') == {'a', 'b'}
        cache.changed('d/a', None, cache.asking())
        assert names(cache, 'd') == {'b'}
        assert entry_of(cache, 'd/a') is None
        clock.advance(TTL_S)
        assert names(cache, 'd') is None

    def test_a_directory_that_was_removed_has_no_listing(self, cache: EntryCache) -> None:
        cache.learn_listing('d', [], cache.asking())
        cache.changed('d', None, cache.asking())
        assert names(cache, 'd') is None
        assert entry_of(cache, 'd') is None

    def test_an_expired_listing_is_not_followed(self, cache: EntryCache, clock: ManualClock) -> None:
        cache.learn_listing('', [file('a')], cache.asking())
        clock.advance(TTL_S)
        for number in range(100):
            cache.changed(f'f{number}', file(f'f{number}'), cache.asking())
        assert '' not in cache._listings


class TestParents:
    def test_directories_that_a_put_makes_are_no_longer_absent(self, cache: EntryCache) -> None:
        for path in ('a', 'a/b'):
            cache.learn(path, None, cache.asking())
        cache.learn_listing('', [file('z')], cache.asking())
        cache.changed('a/b/c', file('c'), cache.asking())
        for path in ('a', 'a/b'):
            assert entry_of(cache, path) == 'unknown'
        assert names(cache, '') is None
        assert entry_of(cache, 'a/b/c') == file('c')

    def test_what_is_known_of_parents_that_are_there_stays(self, cache: EntryCache) -> None:
        cache.learn_listing('', [directory('a')], cache.asking())
        cache.learn('a/b', directory('b'), cache.asking())
        cache.changed('a/b/c', file('c'), cache.asking())
        assert names(cache, '') == {'a'}
        assert entry_of(cache, 'a/b') == directory('b')

    def test_a_listing_under_way_may_lack_the_directory_that_a_put_made(self, cache: EntryCache) -> None:
        asked = cache.asking()
        cache.changed('a/b/c', file('c'), cache.asking())
        assert cache.learn_listing('', [], asked) == 0.0
        assert cache.learn('a', None, asked) == 0.0
        assert names(cache, '') is None


class TestOvertaken:
    """An answer that was under way while we changed the same is not believed."""

    @pytest.mark.parametrize('entry', [file('a', 2), None])
    def test_a_stat(self, cache: EntryCache, entry: Entry | None) -> None:
        asked = cache.asking()
        cache.changed('d/a', entry, cache.asking())
        assert cache.learn('d/a', file('a', 1), asked) == 0.0
        assert entry_of(cache, 'd/a') == entry

    def test_a_listing(self, cache: EntryCache) -> None:
        asked = cache.asking()
        cache.changed('d/a', file('a'), cache.asking())
        assert cache.learn_listing('d', [], asked) == 0.0
        assert cache.list_directory('d') is None

    def test_others_are_believed(self, cache: EntryCache) -> None:
        asked = cache.asking()
        cache.changed('d/a', file('a'), cache.asking())
        assert cache.learn('d/b', file('b'), asked) == TTL_S
        assert cache.learn_listing('e', [], asked) == TTL_S

    def test_who_asks_after_the_change_is_believed(self, cache: EntryCache) -> None:
        cache.changed('a', file('a', 1), cache.asking())
        cache.learn('a', file('a', 2), cache.asking())
        assert entry_of(cache, 'a') == file('a', 2)

    @pytest.mark.parametrize('path', ['d', 'd/a', 'd/a/b', 'other'])
    def test_everything_after_a_directory_was_forgotten(self, cache: EntryCache, path: str) -> None:
        asked = cache.asking()
        cache.forget('d')
        assert cache.learn(path, file('x'), asked) == 0.0

    def test_a_path_that_is_doubted(self, cache: EntryCache) -> None:
        asked = cache.asking()
        cache.doubt('d/a')
        assert cache.learn('d/a', file('a'), asked) == 0.0
        assert cache.learn_listing('d', [file('a')], asked) == 0.0

    def test_more_changes_than_are_told_apart_overtake_all(
        self, cache: EntryCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(entries, 'LIMIT_CHANGES', 10)
        asked = cache.asking()
        for number in range(30):
            cache.changed(f'f{number}', file(f'f{number}'), cache.asking())
            assert len(cache._changed) <= 11
        assert cache.learn('f0', None, asked) == 0.0
        assert cache.learn('other', None, asked) == 0.0


class TestChangesAtOnce:
    """Of two changes to one path that were under way at once, nobody knows which came last."""

    @pytest.mark.parametrize(('first', 'second'), [(file('a'), None), (None, file('a')), (file('a', 1), file('a', 2))])
    def test_the_path_is_asked_for_again(self, cache: EntryCache, first: Entry | None, second: Entry | None) -> None:
        cache.learn_listing('d', [], cache.asking())
        one, two = cache.asking(), cache.asking()
        cache.changed('d/a', first, one)
        cache.changed('d/a', second, two)
        assert entry_of(cache, 'd/a') == 'unknown'
        assert names(cache, 'd') is None

    def test_one_after_the_other_is_clear(self, cache: EntryCache) -> None:
        cache.changed('a', file('a'), cache.asking())
        cache.changed('a', None, cache.asking())
        assert entry_of(cache, 'a') is None


class TestForgetting:
    def test_a_directory_with_all_below_it(self, cache: EntryCache) -> None:
        cache.learn_listing('', [directory('d')], cache.asking())
        for path in ('d', 'd/a', 'd/a/b', 'dd', 'e'):
            cache.learn(path, file('x'), cache.asking())
        for path in ('d', 'd/a', 'e'):
            cache.learn_listing(path, [file('y')], cache.asking())
        cache.forget('d')
        assert [entry_of(cache, path) for path in ('d', 'd/a', 'd/a/b', 'd/a/y')] == ['unknown'] * 4
        assert [names(cache, path) for path in ('', 'd', 'd/a')] == [None] * 3
        assert entry_of(cache, 'dd') == file('x')
        assert names(cache, 'e') == {'y'}

    def test_everything(self, cache: EntryCache) -> None:
        cache.learn('a', file('a'), cache.asking())
        cache.learn_listing('', [file('a')], cache.asking())
        cache.forget('')
        assert entry_of(cache, 'a') == 'unknown'
        assert names(cache, '') is None

    def test_a_doubted_path_its_entries_and_its_siblings(self, cache: EntryCache) -> None:
        cache.learn('d/a', None, cache.asking())
        cache.learn_listing('d', [], cache.asking())
        cache.learn_listing('d/a', [file('x')], cache.asking())
        cache.learn('d/b', file('b'), cache.asking())
        cache.doubt('d/a')
        assert entry_of(cache, 'd/a') == 'unknown'
        assert names(cache, 'd') is None
        assert names(cache, 'd/a') is None
        assert entry_of(cache, 'd/b') == file('b')


class TestBounds:
    def test_stats_are_bounded_and_the_oldest_go(self, clock: ManualClock) -> None:
        cache = EntryCache(TTL_S, clock, limit=10)
        for number in range(20):
            cache.learn(f'f{number}', None, cache.asking())
        assert entry_of(cache, 'f0') == 'unknown'
        assert entry_of(cache, 'f19') is None
        assert len(cache._facts) == 10

    def test_listings_are_bounded_by_their_entries(self, clock: ManualClock) -> None:
        cache = EntryCache(TTL_S, clock, limit=10)
        for number in range(5):
            cache.learn_listing(f'd{number}', [file('a'), file('b'), file('c')], cache.asking())
        assert [names(cache, f'd{number}') is None for number in range(5)] == [True, True, True, False, False]

    def test_a_listing_that_is_too_long_is_not_kept(self, clock: ManualClock) -> None:
        cache = EntryCache(TTL_S, clock, limit=10)
        cache.learn_listing('d', [file('a')], cache.asking())
        cache.learn_listing('d', [file(str(number)) for number in range(10)], cache.asking())
        assert names(cache, 'd') is None

    def test_a_listing_that_grows_by_our_own_changes_stays_within_the_bound(self, clock: ManualClock) -> None:
        cache = EntryCache(TTL_S, clock, limit=10)
        cache.learn_listing('d', [], cache.asking())
        cache.learn_listing('e', [file('x')], cache.asking())
        for number in range(9):
            cache.changed(f'd/{number}', file(str(number)), cache.asking())
        assert names(cache, 'e') is None
        assert len(names(cache, 'd') or ()) == 9
        cache.changed('d/more', file('more'), cache.asking())
        assert names(cache, 'd') is None


class TestSubscribers:
    @pytest.fixture
    def told(self, cache: EntryCache) -> list[str]:
        told: list[str] = []
        cache.subscribe(told.append)
        return told

    def test_the_first_answer_is_no_change(self, cache: EntryCache, told: list[str]) -> None:
        cache.learn('a', file('a'), cache.asking())
        cache.learn('b', None, cache.asking())
        cache.learn_listing('d', [file('c')], cache.asking())
        assert told == []

    def test_the_same_answer_is_no_change(self, cache: EntryCache, told: list[str]) -> None:
        for _ in range(2):
            cache.learn('d/a', file('a'), cache.asking())
            cache.learn_listing('d', [file('a')], cache.asking())
        assert told == []

    def test_a_time_that_is_given_more_exactly_is_no_change(self, cache: EntryCache, told: list[str]) -> None:
        version = Version('etag', strong=True)
        for mtime_ns in (1_000_000_000, 1_234_000_000):
            cache.learn('a', Entry('a', Kind.FILE, 1, mtime_ns, version), cache.asking())
            cache.learn('d', Entry('d', Kind.DIRECTORY, 0, mtime_ns), cache.asking())
        assert told == []

    @pytest.mark.parametrize('age_s', [0.0, 10 * TTL_S])
    def test_another_answer_is_one_however_old_the_first_is(
        self, cache: EntryCache, clock: ManualClock, told: list[str], age_s: float
    ) -> None:
        for before, after in ((file('a', 1), file('a', 2)), (file('a'), None), (None, file('a')), (file('a'), None)):
            cache.learn('a', before, cache.asking())
            told.clear()
            clock.advance(age_s)
            cache.learn('a', after, cache.asking())
            assert told == ['a']

    @pytest.mark.parametrize('age_s', [0.0, 10 * TTL_S])
    def test_of_a_listing_each_name_that_appeared_changed_or_went(
        self, cache: EntryCache, clock: ManualClock, told: list[str], age_s: float
    ) -> None:
        cache.learn_listing('d', [file('same'), file('changed', 1), file('gone')], cache.asking())
        clock.advance(age_s)
        cache.learn_listing('d', [file('same'), file('changed', 2), file('new')], cache.asking())
        assert told == ['d/changed', 'd/gone', 'd/new']

    def test_a_listing_contradicts_what_stats_said(self, cache: EntryCache, told: list[str]) -> None:
        cache.learn('d/was there', file('was there'), cache.asking())
        cache.learn('d/was not', None, cache.asking())
        cache.learn('d/still not', None, cache.asking())
        cache.learn_listing('d', [file('was not')], cache.asking())
        assert told == ['d/was not', 'd/was there']
        assert [entry_of(cache, f'd/{name}') for name in ('was there', 'was not')] == [None, file('was not')]

    def test_a_stat_contradicts_what_a_listing_said(self, cache: EntryCache, told: list[str]) -> None:
        cache.learn_listing('d', [file('a', 1)], cache.asking())
        cache.learn('d/a', file('a', 2), cache.asking())
        cache.learn('d/b', None, cache.asking())
        cache.learn('d/c', file('c'), cache.asking())
        assert told == ['d/a', 'd/c']

    def test_what_was_said_last_counts(self, cache: EntryCache, clock: ManualClock, told: list[str]) -> None:
        cache.learn('a', file('a', 1), cache.asking())
        clock.advance(TTL_S)
        cache.learn_listing('', [file('a', 2)], cache.asking())
        clock.advance(TTL_S)
        cache.learn('a', file('a', 2), cache.asking())
        assert told == ['a']

    def test_our_own_changes_are_told_whatever_was_known(self, cache: EntryCache, told: list[str]) -> None:
        cache.changed('d/a', file('a'), cache.asking())
        cache.changed('d/a', None, cache.asking())
        cache.doubt('d/b')
        cache.forget('d')
        assert told == ['d/a', 'd/a', 'd/b', 'd']

    def test_an_answer_that_is_not_believed_is_not_told(self, cache: EntryCache, told: list[str]) -> None:
        cache.learn('a', file('a', 1), cache.asking())
        asked = cache.asking()
        cache.changed('a', file('a', 2), cache.asking())
        told.clear()
        cache.learn('a', file('a', 1), asked)
        cache.learn_listing('', [file('a', 1)], asked)
        assert told == []

    def test_who_is_told_may_look(self, cache: EntryCache) -> None:
        seen: list[Entry | str | None] = []
        cache.subscribe(lambda path: seen.append(entry_of(cache, path)))
        cache.learn('a', file('a'), cache.asking())
        cache.learn('a', None, cache.asking())
        assert seen == [None]

    def test_who_has_ended_is_told_no_more_and_others_are(self, cache: EntryCache, told: list[str]) -> None:
        also_told: list[str] = []
        end = cache.subscribe(also_told.append)
        end()
        end()
        cache.changed('a', None, cache.asking())
        assert (told, also_told) == (['a'], [])

    def test_names_that_were_pushed_out_are_not_remembered(self, clock: ManualClock) -> None:
        cache = EntryCache(TTL_S, clock, limit=3)
        for number in range(10):
            cache.learn(f'd{number}/a', file('a'), cache.asking())
        assert sum(len(cache._facts.names(f'd{number}')) for number in range(10)) == 3
        assert len(cache._facts._names) == 3


class TestTimes:
    """What was put here, of which nobody has told the time."""

    def test_who_needs_the_time_asks_and_who_does_not_is_told(self, cache: EntryCache) -> None:
        cache.changed('d/f', file('f'), cache.asking(), timed=False)
        assert cache.find('d/f') is None
        assert cache.find('d/f', timed=False) == Known(file('f'), TTL_S, timed=False)
        assert cache.has_file('d/f')
        cache.learn('d/f', file('f'), cache.asking())
        assert cache.find('d/f') == cache.find('d/f', timed=False) == Known(file('f'), TTL_S)

    def test_a_listing_lacks_it_until_it_was_asked_for(self, cache: EntryCache) -> None:
        cache.learn_listing('d', [file('e')], cache.asking())
        cache.changed('d/f', file('f'), cache.asking(), timed=False)
        assert names(cache, 'd') is None
        assert cache.find('d/e') == Known(file('e'), TTL_S)
        assert cache.find('d/g') == Known(None, TTL_S)
        cache.learn('d/f', file('f'), cache.asking())
        assert names(cache, 'd') == {'e', 'f'}

    def test_others_in_a_directory(self, cache: EntryCache, clock: ManualClock) -> None:
        assert cache.has_others('d/f') is None
        cache.learn_listing('d', [file('f')], cache.asking())
        assert cache.has_others('d/f') is False
        cache.changed('d/g', file('g'), cache.asking(), timed=False)
        assert cache.has_others('d/f') is True
        clock.advance(TTL_S)
        assert cache.has_others('d/f') is None
