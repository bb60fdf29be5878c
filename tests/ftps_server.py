"""An FTP server that wants AUTH TLS, which rclone's does not know: ftps_server.py FOLDER PORT CERTIFICATE."""

import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import TLS_FTPHandler
from pyftpdlib.servers import FTPServer

USER = 'tester'
PASSWORD = 'test-password'


def serve(folder: str, port: int, certificate: str) -> None:
    """Serve a folder until the process ends."""
    authorizer = DummyAuthorizer()
    authorizer.add_user(USER, PASSWORD, folder, perm='elradfmwMT')

    class Handler(TLS_FTPHandler):
        certfile = certificate
        tls_control_required = True
        tls_data_required = True

    Handler.authorizer = authorizer
    FTPServer(('127.0.0.1', port), Handler).serve_forever()


if __name__ == '__main__':
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3])
