"""A TCP proxy that adds a round trip: what a bucket far away would cost, on a machine that has only a near one.

Each chunk is passed on half a round trip after it arrived, in order; the bandwidth is not touched. It runs as
python -m tests.bench.delay_proxy UPSTREAM_PORT ROUND_TRIP_MS, and prints the port that it listens on.
"""
# ruff: noqa: T201 - a program that prints

import asyncio
import sys
from collections.abc import Awaitable, Callable

_CHUNK_BYTES = 256 * 1024
#: Chunks under way in one direction: more than bandwidth times delay at the speed of loopback.
_LIMIT = 64


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_LIMIT)

    async def receive() -> None:
        data = b'-'
        while data:
            data = await reader.read(_CHUNK_BYTES)
            await chunks.put((loop.time() + delay_s, data))

    receiving = asyncio.create_task(receive())
    try:
        while True:
            due, data = await chunks.get()
            if (wait_s := due - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            if not data:
                break
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # an end has closed; the other one is told below
    finally:
        receiving.cancel()
        writer.close()


def _connect(port: int, delay_s: float) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection('127.0.0.1', port)
        await asyncio.gather(_forward(reader, upstream_writer, delay_s), _forward(upstream_reader, writer, delay_s))

    return connected


async def main() -> None:
    port, round_trip_ms = int(sys.argv[1]), float(sys.argv[2])
    server = await asyncio.start_server(_connect(port, round_trip_ms / 2000), '127.0.0.1', 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == '__main__':
    asyncio.run(main())
