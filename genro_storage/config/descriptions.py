"""What each key is for, in a sentence: what editors show beside it.

Owns the sentences. What a key accepts is said by its reader, and shown by schema. Pure.
"""

from collections.abc import Mapping

#: By key, where every type means the same.
COMMON: Mapping[str, str] = {
    'name': "What stands before the colon in 'name:path', and the directory of the mounted tree.",
    'permissions': 'What may be done with the files; each allows what the ones before it do.',
    'ttl': "How long it is believed what a directory held and how a file was, such as '10s' or '5m'; 'forever' too.",
    'cache': 'Where blocks that were read stay.',
    'durability': "What close waits for: the commit on the server ('close'), or the journal on the local disk.",
    'writeback_delay': "How long after close the upload begins, with 'durability: writeback'.",
    'posix': 'What becomes of mode, owner and the like where the server has none of them.',
    'timeout': 'How long nothing may move before the server counts as out of reach.',
    'uid': 'Whose the files are in the mounted tree; without it, of who mounts.',
    'gid': 'Of which group the files are in the mounted tree.',
    'umask': "What the modes of files in the mounted tree have not, in octal digits such as '022'.",
    'noise': 'What becomes of what desktops leave in every directory, and of programs that read every file.',
    'urls': 'For how long the URLs are valid that are made of files for whoever asks; without it none are made.',
    'driver': 'What speaks to the server.',
    'options': 'Handed to the driver as they are.',
    'protocol': 'The name of the protocol, as fsspec knows it.',
    'path': 'The folder, absolute, below ~, or relative to this file.',
    'bucket': 'The name of the bucket.',
    'container': 'The name of the container.',
    'prefix': 'The folder inside it that is the root of the mount; without it, all of it.',
    'region': 'The region of the bucket.',
    'endpoint_url': 'Where the server is, if not where it usually is: http://host:port or https://host.',
    'key': 'The access key.',
    'secret': 'The secret key.',
    'token': 'A token beside, or in place of, other credentials.',
    'profile': "The profile of AWS's own configuration that has the credentials.",
    'anon': 'Whether to ask without credentials.',
    'project': 'The project that is charged.',
    'account_name': 'The storage account.',
    'account_key': 'The key of the account.',
    'sas_token': 'A shared access signature.',
    'file': "The archive: a path of this machine, or 'mount:path'.",
    'ref': 'The branch, the tag or the commit whose files are shown.',
    'org': 'The user or organisation that the repository belongs to.',
    'repo': 'The name of the repository.',
    'connection_string': 'All of the account in one text, as the portal shows it.',
    'base_url': 'The URL whose files these are.',
    'headers': 'Headers that go with each request, such as Authorization.',
    'url': 'The URL of the collection that is the root of the mount.',
    'username': 'Who asks.',
    'password': 'The password of the user.',
    'host': 'The name or the address of the server.',
    'port': 'The port of the server, if not the usual one.',
    'tls': 'Whether the connection is encrypted (AUTH TLS).',
    'key_filename': 'The file of the private key.',
    'passphrase': 'The passphrase of the private key.',
    'known_hosts': "The file with the keys of servers; without it, '~/.ssh/known_hosts'.",
    'check_host_key': 'Whether the server must prove that it is the one that is known.',
    'share': 'The name of the share.',
    'domain': 'The domain of the user, if it is not the server itself.',
}

#: By type and key, where one of them means something else.
SPECIAL: Mapping[tuple[str, str], str] = {
    ('s3', 'token'): 'A session token, beside a key and a secret.',
    ('webdav', 'token'): 'A bearer token, in place of a user and a password.',
    ('ftp', 'path'): 'The folder on the server that is the root of the mount; without it, where a login begins.',
    ('sftp', 'path'): "The folder on the server that is the root of the mount; without it, the user's home.",
    ('smb', 'path'): 'The folder of the share that is the root of the mount; without it, all of it.',
    ('gcs', 'token'): 'The path of a JSON file with credentials, such JSON itself, or an access token.',
    ('git', 'path'): 'The folder of the repository, absolute, below ~, or relative to this file.',
    ('github', 'token'): 'A token that may read the repository.',
    ('github', 'endpoint_url'): 'Where the API is, of GitHub Enterprise: https://host/api/v3.',
    ('relative', 'path'): "The other mount and the directory in it, as 'mount:path'.",
    ('fsspec', 'path'): "The root of the mount, in the words of that protocol's file system.",
}

#: The sections of a file, and of its cache.
SECTIONS: Mapping[str, str] = {
    'include': 'Files with further mounts, relative to this one; * and ? match names.',
    'defaults': 'Keys that all mounts of this file have unless they say otherwise.',
    'mounts': 'The mounts, each with a name and a type.',
    'cache': 'How much may be kept of what was read, and where, for all mounts together.',
}
CACHE: Mapping[str, str] = {
    'path': "The folder of the cache; without it, in the user's cache folder.",
    'memory': "How much memory it may take, such as '128MiB'.",
    'disk': "How much of the disk it may take, such as '10GiB'; it leaves room on the disk too.",
}


def of_key(type_name: str, key: str) -> str | None:
    """The sentence for a key of a type; None for one that nobody has described."""
    return SPECIAL.get((type_name, key), COMMON.get(key))
