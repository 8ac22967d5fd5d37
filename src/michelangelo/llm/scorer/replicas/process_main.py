"""A replica as a process: `python -m michelangelo.llm.scorer.replicas.process_main SOCKET`, started by the driver.

It ends at once when the driver does: the other end of its socket is closed then, whatever ended it. It leads a group of
processes of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

from michelangelo.llm.scorer.replicas import channel as channels
from michelangelo.llm.scorer.replicas import worker

__all__ = ["main"]


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    channel = channels.SocketChannel(connection)
    reader = channels.lines(connection)
    setup = next(reader)

    def read() -> None:
        try:
            for message in reader:
                channel.inbox.put(message)
        except OSError:
            pass
        # The driver is gone: an engine that works on must keep neither this process alive nor those that it started.
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=read, name="driver", daemon=True).start()
    try:
        worker.work(setup, channel)
    except BrokenPipeError:
        os._exit(0)
    # Libraries may hold threads of their own that do not end.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
