"""A server that does nothing: it reads each request and answers what it was given for that path, else `{}`.

A GET of a file that is called as the one that it was given answers that file.

python benchmarks/tracking_null.py ANSWERS.json     prints its port
"""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import psutil

FILE = "file"
"""The answer of this name is the path of the file."""
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


@contextmanager
def answering(answers: dict[str, bytes], folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The server in a process of its own: its URL and the process."""
    file = folder / "answers.json"
    file.write_text(json.dumps({path: base64.b64encode(body).decode() for path, body in answers.items()}))
    process = subprocess.Popen([sys.executable, __file__, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}", psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


async def _serve(answers: dict[str, bytes]) -> None:
    file = Path(answers.get(FILE, b"/").decode())
    size = os.stat(file).st_size  # noqa: PTH116 - before anybody is served

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            lines = head.decode("latin-1").split("\r\n")
            path = lines[0].split(" ")[1].partition("?")[0]
            left = next((int(line[15:]) for line in lines if line.lower().startswith("content-length:")), 0)
            while left:
                left -= len(await reader.read(min(left, 1 << 20)))
            if lines[0].startswith("GET") and path.rpartition("/")[2] == file.name:
                writer.write(_HEAD % size)
                with FileIO(file) as content:
                    await asyncio.get_running_loop().sendfile(writer.transport, content)
                continue
            body = answers.get(path, b"{}")
            writer.write(_HEAD % len(body) + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, OSError):
        return b""


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    os.nice(0)
    asyncio.run(_serve({path: base64.b64decode(body) for path, body in given.items()}))
