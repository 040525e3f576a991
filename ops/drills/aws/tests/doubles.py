"""Servers on a free port of the loopback, which is printed once they listen.

doubles.py postgres CERTIFICATE KEY    says yes to TLS as PostgreSQL does, shows its certificate, hangs up
doubles.py health                      breaks the first connection, answers 503 to the second and 200 from then on
"""

import itertools
import socket
import ssl
import sys


def postgres(client, context):
    client.recv(8)
    client.sendall(b"S")
    with context.wrap_socket(client, server_side=True) as shown:
        shown.recv(1)


def health(client, turn):
    client.recv(4096)
    if turn > 0:
        client.sendall(b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % (b"503 no" if turn == 1 else b"200 yes"))


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
if sys.argv[1] == "postgres":
    context.load_cert_chain(sys.argv[2], sys.argv[3])
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    for turn in itertools.count():
        client, _ = listener.accept()
        with client:
            try:
                postgres(client, context) if sys.argv[1] == "postgres" else health(client, turn)
            except OSError:
                pass  # who does not believe the certificate leaves
