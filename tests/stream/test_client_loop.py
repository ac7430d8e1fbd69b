"""The client's loop, which a thread that waits runs: none waits in it for ever."""

import threading
from contextlib import suppress

from memvid_async import StoreClosedError
from memvid_async.stream.client_loop import ClientLoop

# Which thread comes first when the loop is closed is chance.
ROUNDS = 100


def test_closing_leaves_no_thread_waiting():
    for _ in range(ROUNDS):
        loop = ClientLoop()

        def wait(loop=loop):
            with suppress(StoreClosedError):
                loop.wait(lambda: False, None)

        threads = [threading.Thread(target=wait, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        # One of them runs it.
        while len(loop._others) < len(threads) - 1:
            pass
        loop.close()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
