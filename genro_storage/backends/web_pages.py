"""Index pages: what the HTML that a web server shows for a directory says is in it.

Owns which links of a page are entries. Asks nobody. Threads: safe.
"""

from collections.abc import Mapping
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from genro_storage import paths


def names_in(page: bytes, url: str) -> Mapping[str, bool]:
    """The names of the entries of the directory at a URL that ends in a slash, and whether each is a directory itself.

    Entries are links to right below it: what leads up or elsewhere, sorts the page or jumps within it is none.
    Names may be such as no path can express.
    """
    links = _Links()
    links.feed(page.decode('utf-8', 'replace'))
    links.close()
    here = urlsplit(url)
    base = unquote_to_bytes(here.path)
    found: dict[str, bool] = {}
    for link in links.found:
        try:
            target = urlsplit(_joined(url, link))
        except ValueError:
            continue
        # A query asks for another view of what is linked without it.
        if target[:2] != here[:2] or target.query:
            continue
        path = unquote_to_bytes(target.path)
        name = target.path.rstrip('/').rpartition('/')[2]
        if path.startswith(base) and unquote_to_bytes(name) == path[len(base) :].removesuffix(b'/'):
            decoded = paths.decode(unquote_to_bytes(name))
            if decoded:
                found[decoded] = found.get(decoded, False) or target.path.endswith('/')
    return found


def _joined(url: str, link: str) -> str:
    joined = urljoin(url, link)
    # urljoin takes it for the beginning of parameters, of which there are none.
    return f'{joined};' if link.endswith(';') and not joined.endswith(';') else joined


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == 'a':
            self.found += [value.strip() for name, value in attrs if name == 'href' and value]
