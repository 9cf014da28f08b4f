"""A TCP load balancer: what a Service of Kubernetes does for the nodes.

Each node's /readyz is asked every PROBE_SECONDS; a new connection goes to the
ready node that has the fewest. Connections that stand are left alone, whatever
becomes ready or not, and end with either of their ends. It knows nothing of
HTTP, so every status that a client sees is a node's.
"""
import asyncio
import collections
import contextlib
import socket
import threading

PROBE_SECONDS = 0.2


class Balancer(threading.Thread):
    """`with Balancer(address, nodes) as b:`; nodes is read again and again."""

    def __init__(self, address, nodes):
        super().__init__(daemon=True)
        self.nodes = nodes
        self.ready = []
        self.open = collections.Counter()  # connections by name of the node
        self.listener = socket.create_server((address, 0), backlog=1024)
        self.address = f"{address}:{self.port}"
        self.loop = asyncio.new_event_loop()

    @property
    def port(self):
        return self.listener.getsockname()[1]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.stop.set)
        self.join()

    def run(self):
        self.loop.run_until_complete(self._run())
        self.loop.close()

    async def _run(self):
        self.stop = asyncio.Event()
        probes = asyncio.create_task(self._probe_all())
        server = await asyncio.start_server(self._serve, sock=self.listener)
        await self.stop.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe_all(self):
        while True:
            nodes = list(self.nodes)
            answers = await asyncio.gather(*map(self._probe, nodes))
            self.ready = [n for n, ok in zip(nodes, answers) if ok]
            await asyncio.sleep(PROBE_SECONDS)

    async def _probe(self, node):
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection(
                    node.place.front, node.admin_port)
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: probe\r\n"
                             b"Connection: close\r\n\r\n")
                status = await reader.readline()
                writer.close()
                return status.startswith(b"HTTP/1.1 200 ")
        except OSError:  # a TimeoutError is one too
            return False

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError), contextlib.closing(writer):
            if not self.ready:
                return
            node = min(self.ready, key=lambda n: self.open[n.name])
            self.open[node.name] += 1
            try:
                await self._relay(node, reader, writer)
            finally:
                self.open[node.name] -= 1

    async def _relay(self, node, reader, writer):
        there, back = await asyncio.open_connection(
            node.place.front, node.port)
        with contextlib.closing(back):
            await asyncio.wait(
                [asyncio.create_task(_copy(reader, back)),
                 asyncio.create_task(_copy(there, writer))],
                return_when=asyncio.FIRST_COMPLETED)


async def _copy(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
