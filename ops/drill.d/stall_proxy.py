"""A TCP proxy that can black-hole: stall_proxy.py LISTEN_PORT TARGET_PORT.

SIGUSR1: from now on nothing passes, in either direction, and new connections are
accepted and then hear nothing. SIGUSR2: everything that waits goes on its way.
Nobody sees a reset or a closed connection meanwhile, as when packets are lost.
"""

import asyncio
import signal
import sys

CHUNK_BYTES = 65536


async def pump(reader, writer, passing):
    """One direction, until its end; at most a chunk is held while stalled."""
    try:
        while True:
            data = await reader.read(CHUNK_BYTES)
            await passing.wait()
            if not data:
                break
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def serve(listen_port, target_port):
    passing = asyncio.Event()
    passing.set()

    async def connected(reader, writer):
        await passing.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target_port)
        except OSError:
            # As the server itself would refuse.
            writer.close()
            return
        await asyncio.gather(
            pump(reader, far_writer, passing), pump(far_reader, writer, passing)
        )

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, passing.clear)
    loop.add_signal_handler(signal.SIGUSR2, passing.set)
    server = await asyncio.start_server(connected, "127.0.0.1", listen_port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
