"""A worker that starts at once, and does what its arguments say.

It answers whoever connects with its number and process id.
"""

import contextlib
import json
import os
import select
import socket
import sys
import time
from pathlib import Path


def main() -> None:
    number, listener_file, lifeline_file = map(int, sys.argv[1:4])
    listener, lifeline = socket.socket(fileno=listener_file), socket.socket(fileno=lifeline_file)
    behaviour = dict(argument.partition("=")[::2] for argument in sys.argv[4:])

    def report(**fields: object) -> None:
        lifeline.sendall(json.dumps(fields).encode() + b"\n")

    if "ledger" in behaviour:
        with Path(behaviour["ledger"]).open("a", encoding="ascii") as ledger:
            ledger.write(f"{number} {os.getpid()}\n")
    if "error" in behaviour or os.path.exists(behaviour.get("error-if", "")):
        report(errors=[behaviour.get("error", "as told")])
        sys.exit(1)
    if "status" in behaviour:
        sys.exit(int(behaviour["status"]))
    if "hang" in behaviour:
        lifeline.recv(100)
        sys.exit(0)
    listener.listen(100)
    report(urls=["http://here/mcp"])
    while not select.select([lifeline], [], [], 0)[0]:
        if select.select([listener, lifeline], [], [])[0] == [listener]:
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].sendall(f"{number} {os.getpid()}".encode())
    told = lifeline.recv(100)
    if told and "deaf" in behaviour:
        lifeline.recv(100)
        time.sleep(float(behaviour["deaf"]))
    if told and "last-words" in behaviour:
        report(errors=[behaviour["last-words"]])
        sys.exit(1)


if __name__ == "__main__":
    main()
