"""Definitions of HTTP, WebDAV, FTP, SFTP and SMB: their keys, what is wrong, what is shown, and who may say what."""

import pickle
from typing import Any

import pytest

from genro_storage.backends.registry import create
from genro_storage.config import (
    FtpDefinition,
    HttpDefinition,
    Permissions,
    Privilege,
    SftpDefinition,
    SmbDefinition,
    Untrusted,
    WebdavDefinition,
    definition_from_mapping,
    load,
)
from genro_storage.errors import StorageConfigError
from genro_storage.runtime import SystemClock

HTTP = {'name': 'm', 'type': 'http', 'base_url': 'https://h/x/'}
WEBDAV = {'name': 'm', 'type': 'webdav', 'url': 'https://h:8/dav'}
FTP = {'name': 'm', 'type': 'ftp', 'host': 'h'}
SFTP = {'name': 'm', 'type': 'sftp', 'host': 'h'}
SMB = {'name': 'm', 'type': 'smb', 'host': 'h', 'share': 's'}
LOGIN = {'username': 'u', 'password': 'p'}


def test_every_key_becomes_its_value() -> None:
    given: list[tuple[dict[str, Any], Any]] = [
        ({**HTTP, 'headers': {'A': 'b'}}, HttpDefinition(name='m', base_url='https://h/x/', headers={'A': 'b'})),
        ({**WEBDAV, **LOGIN}, WebdavDefinition(name='m', url='https://h:8/dav', username='u', password='p')),
        ({**WEBDAV, 'token': 't'}, WebdavDefinition(name='m', url='https://h:8/dav', token='t')),
        (
            {**FTP, **LOGIN, 'port': '2121', 'path': '/a', 'tls': 'yes'},
            FtpDefinition(name='m', host='h', port=2121, username='u', password='p', path='/a', tls=True),
        ),
        (
            {**SFTP, 'key_filename': 'k', 'passphrase': 'p', 'base_path': 'in/home', 'known_hosts': '/kh'},
            SftpDefinition(
                name='m', host='h', key_filename='/base/k', passphrase='p', path='in/home', known_hosts='/kh'
            ),
        ),
        (
            {**SMB, **LOGIN, 'domain': 'd', 'path': '/a//b/', 'port': 4450},
            SmbDefinition(name='m', host='h', share='s', username='u', password='p', domain='d', path='a/b', port=4450),
        ),
    ]
    for mapping, definition in given:
        assert definition_from_mapping(mapping, folder='/base') == definition
    assert definition_from_mapping(HTTP).permissions is Permissions.READONLY


@pytest.mark.parametrize(
    ('mapping', 'told'),
    [
        ({**HTTP, 'base_url': 'ftp://h'}, "'base_url': expected a URL that starts with http:// or https://"),
        ({**HTTP, 'base_url': 'https://h:port/'}, "'base_url': expected a URL that starts"),
        ({**HTTP, 'base_url': 'https://h/?q=1'}, "'base_url': expected a URL without '?'"),
        ({**HTTP, 'base_url': 'https://h/../x'}, "'base_url': expected a URL without '..'"),
        ({**HTTP, 'permissions': 'delete'}, "'permissions': expected readonly"),
        ({**HTTP, 'headers': {'Cookie': 7}}, "'headers': expected a text for each header"),
        ({**HTTP, 'url': 'https://h'}, "unknown key 'url'; did you mean 'urls'?"),
        ({**WEBDAV, 'password': 'hunter2'}, "'username': missing"),
        ({**WEBDAV, **LOGIN, 'token': 'hunter2'}, "'token': contradicts 'username'"),
        ({**FTP, 'host': 'ftp://h'}, "'host': expected the name or the address of a server"),
        ({**FTP, 'port': 0}, "'port': expected 1 to 65535"),
        ({**FTP, 'path': 'a/../b'}, "'path': expected a path without '..'"),
        ({**SFTP, 'host': '-oProxyCommand=x'}, "'host': expected the name"),
        ({**SFTP, 'passphrase': 'hunter2'}, "'passphrase': of no use without 'key_filename'"),
        ({**SFTP, 'known_hosts': '/k', 'check_host_key': False}, "'check_host_key': contradicts 'known_hosts'"),
        ({**SMB, 'share': 's/folder'}, "'share': expected the name of a share"),
        ({'name': 'm', 'type': 'smb', 'host': 'h'}, "'share' is missing"),
    ],
)
def test_a_wrong_one_says_what_is_wrong_and_no_secret(mapping: dict[str, Any], told: str) -> None:
    with pytest.raises(StorageConfigError) as caught:
        definition_from_mapping(mapping)
    assert told in str(caught.value)
    assert 'hunter2' not in str(caught.value)


@pytest.mark.parametrize(
    'mapping',
    [
        {**HTTP, 'headers': {'X-Key': 'hunter2'}},
        {**HTTP, 'base_url': 'https://u:hunter2@h/x'},
        {**WEBDAV, 'username': 'u', 'password': 'hunter2'},
        {**WEBDAV, 'token': 'hunter2'},
        {**WEBDAV, 'url': 'https://u:hunter2@h/x'},
        {**FTP, 'username': 'u', 'password': 'hunter2'},
        {**SFTP, 'password': 'hunter2'},
        {**SFTP, 'key_filename': '/k', 'passphrase': 'hunter2'},
        {**SMB, 'username': 'u', 'password': 'hunter2'},
    ],
)
def test_a_secret_is_shown_nowhere(mapping: dict[str, Any]) -> None:
    definition = definition_from_mapping(mapping)
    backend = create(definition, SystemClock())
    assert 'hunter2' not in f'{definition!r}{definition.shown()}{backend!r}{backend.destination}'
    backend.close()
    with pytest.raises(StorageConfigError, match=r'\$\{NAME\}'):
        pickle.dumps(definition)


def test_a_header_may_refer_to_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TOKEN_OF_TESTS', 'Bearer hunter2')
    definition = definition_from_mapping({**HTTP, 'headers': {'Authorization': 'env:TOKEN_OF_TESTS'}})
    assert definition.has_references
    resolved = definition.resolved()
    assert isinstance(resolved, HttpDefinition)
    assert resolved.headers == {'Authorization': 'Bearer hunter2'}
    backend = create(definition, SystemClock())
    assert backend.destination == 'http:https://h/x'
    backend.close()


@pytest.mark.parametrize(
    ('privilege', 'key', 'mapping'),
    [
        ('local', 'key_filename', {**SFTP, 'key_filename': '/root/.ssh/id_rsa'}),
        ('local', 'known_hosts', {**SFTP, 'password': 'p', 'known_hosts': '/etc/shadow'}),
        ('credentials', 'password', SFTP),
        ('credentials', 'password', SMB),
        ('secrets', 'password', {**FTP, 'username': 'u', 'password': 'file:/etc/shadow'}),
        ('secrets', 'headers', {**HTTP, 'headers': {'Authorization': 'env:HOME'}}),
    ],
)
def test_an_untrusted_source_names_no_file_and_uses_no_keys_of_this_machine(
    privilege: str, key: str, mapping: dict[str, Any]
) -> None:
    with pytest.raises(StorageConfigError, match=f"key '{key}': an untrusted source may not .*'{privilege}'"):
        load(Untrusted([mapping], allow=set(Privilege) - {Privilege(privilege)}))
    assert load(Untrusted([mapping], allow=[privilege]))


@pytest.mark.parametrize('mapping', [HTTP, WEBDAV, FTP, {**SFTP, **LOGIN}, {**SMB, **LOGIN}])
def test_servers_with_their_own_credentials_are_free(mapping: dict[str, Any]) -> None:
    assert load(Untrusted([mapping])).mounts == load([mapping]).mounts


@pytest.mark.parametrize(
    ('mapping', 'destination'),
    [
        (HTTP, 'http:https://h/x'),
        ({**WEBDAV, **LOGIN}, 'webdav:https://u@h:8/dav'),
        ({**FTP, 'path': '/a/b/'}, 'ftp:h:21//a/b'),
        ({**FTP, 'path': 'a', 'tls': True}, 'ftps:h:21/a'),
        ({**SFTP, **LOGIN, 'path': '/a'}, 'sftp:u@h:22/a'),
        ({**SFTP, **LOGIN, 'path': 'a'}, 'sftp:u@h:22/~/a'),
        ({**SFTP, **LOGIN}, 'sftp:u@h:22/~'),
        ({**SMB, **LOGIN, 'path': 'a'}, 'smb:u@h:445/s/a'),
    ],
)
def test_what_is_elsewhere_has_another_destination(mapping: dict[str, Any], destination: str) -> None:
    backend = create(definition_from_mapping(mapping), SystemClock())
    assert backend.destination == destination
    backend.close()
