"""An FTP server beside rclone's; with a certificate it wants AUTH TLS: ftps_server.py FOLDER PORT [CERTIFICATE]."""

import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer

USER = 'tester'
PASSWORD = 'test-password'


def serve(folder: str, port: int, certificate: str | None) -> None:
    """Serve a folder until the process ends."""
    authorizer = DummyAuthorizer()
    authorizer.add_user(USER, PASSWORD, folder, perm='elradfmwMT')

    class Plain(FTPHandler):
        pass

    class Encrypted(TLS_FTPHandler):
        certfile = certificate
        tls_control_required = True
        tls_data_required = True

    handler = Plain if certificate is None else Encrypted
    handler.authorizer = authorizer
    FTPServer(('127.0.0.1', port), handler).serve_forever()


if __name__ == '__main__':
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
