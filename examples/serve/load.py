"""How many requests a second the service answers: workers that each send the next when one is done.

python examples/serve/load.py --url=http://127.0.0.1:8000/features --file=photo.jpg --workers=4
"""

import argparse
import asyncio
import time
from pathlib import Path

import httpx
import numpy as np

KINDS = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


async def work(client, url, files, until, taken, failed):
    """Sends one request after the other until the time is up."""
    number = 0
    while time.perf_counter() < until:
        began = time.perf_counter()
        try:
            answer = await client.post(url, files={"image": files[number % len(files)]})
            (taken if answer.status_code == 200 else failed).append(time.perf_counter() - began)
        except httpx.HTTPError:
            failed.append(time.perf_counter() - began)
        number += 1


async def measure(url, paths, workers, seconds):
    """Loads a service.

    Args:
        url: where to post to.
        paths: images to send in turn.
        workers: requests at a time.
        seconds: how long.

    Returns:
        A dict of `requests_per_second`, `p50_ms`, `p99_ms`, `answered` and `failed`.
    """
    files = [(path.name, path.read_bytes(), KINDS[path.suffix.lower()]) for path in paths]
    taken, failed = [], []
    async with httpx.AsyncClient(timeout=60) as client:
        await client.post(url, files={"image": files[0]})  # opened and warm
        began = time.perf_counter()
        until = began + seconds
        tasks = [work(client, url, files, until, taken, failed) for _ in range(workers)]
        await asyncio.gather(*tasks)
        wall = time.perf_counter() - began
    p50, p99 = (1e3 * np.percentile(taken, q) if taken else float("nan") for q in (50, 99))
    return {
        "requests_per_second": len(taken) / wall,
        "p50_ms": p50,
        "p99_ms": p99,
        "answered": len(taken),
        "failed": len(failed),
    }


def main():
    """Prints what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="http://127.0.0.1:8000/features")
    parser.add_argument("--file", type=Path, nargs="+", required=True)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    found = asyncio.run(measure(given.url, given.file, given.workers, given.seconds))
    print(", ".join(f"{name} {value:.4g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
