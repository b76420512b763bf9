"""A lane of the tests, forked from the fork server, in place of an interpreter of its own.

    pytest --tx "4*popen//python=python -IS tests/support/forking/lane.py"

It is called as a Python interpreter is (`-u -c PROGRAM`), and hands the program and its standard streams to the
fork server that `TESTS_ZYGOTE` names, where torch and what else takes seconds is imported already. It lasts as
long as the lane, and ends with its exit status.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time


def main() -> int:
    path = os.environ["TESTS_ZYGOTE"]
    while not os.path.exists(path):  # it starts beside this
        time.sleep(0.02)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        order = {"program": sys.argv[-1], "environ": dict(os.environ), "folder": os.getcwd()}
        connection.sendall(json.dumps(order).encode() + b"\n")
        connection.recv(1)  # the server has read the order, and nothing that follows it
        socket.send_fds(connection, [b"0"], [0, 1, 2])
        return int(connection.makefile().read() or 1)  # empty: killed


if __name__ == "__main__":
    sys.exit(main())
