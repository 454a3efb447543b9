"""Does the server answer in time, rightly, and without growing, also while clients and processes misbehave?

    python benchmarks/serving.py --work DIR --photos PHOTOS [--seconds 60] [--small]

Serves 100 000 images: the photographs, described by the default extractor, and images composed of their features. Eight
clients then search by the names of photographs, each request another name, with verification of 50 images, and compare
every answer with that of the library. In the second, rough phase there are half as many such clients, and others that
send slowly, upload photographs, broken files and halves of files; processes of the server are killed, and another
process adds and deletes images.

cpu_ms_per_answer      time of processors that the server took for a search, which other programs change little
cores_of_server        processors that the server had on average; cores_of_others those of programs that are not part
                       of the measurement, without which it would have had more
memory_growth_mb       median memory of the last quarter of the phase less that of the second, with all its processes;
                       private_growth_mb without the parts of files that are mapped, server_growth_mb of these the
                       part of the server process alone
paced_...              at 25 requests a second instead of as many as there are answers
floor_ms               one search in this process without a server, with one thread, features in memory
floor_answers_per_second  such searches in as many threads as there are processors
describe_floor_ms      the extractor alone, for the photographs that are uploaded
rough_...              of the second phase

Medians and percentiles of milliseconds; errors are wrong answers, statuses that are neither an answer nor a refusal,
connections that were broken off, and what did not end.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from serving_clients import Record, kill_workers, search_names, send_slowly, upload_broken, upload_photographs
from serving_index import (
    Answer,
    draw_photographs,
    linked,
    photograph_index,
    right_answers,
    served_index,
    without,
)
from serving_process import Samples, Server, machine_seconds, processor_seconds, sampled
from timing import percentile, show

from asmk_engine import threads
from asmk_engine.indexes.named_images import NamedImages
from asmk_engine.inverted.index import Index
from asmk_engine.inverted.search import Searcher

TOP, RERANK = 30, 50
CLIENTS = 8
UPLOADED = 24
FLOOR_NAMES = 100
PACED_RATE = 25
SLOW = 4
WARM_SECONDS = 60.0
_WRITER = "import sys, serving_index; serving_index.write_forever(sys.argv[1])"


@dataclass(frozen=True)
class Load:
    """What clients ask: names with their right answers, and photographs with theirs."""

    names: list[str]
    right: dict[str, Answer]
    photographs: dict[Path, Answer]

    def endless(self, seed: int) -> Locked:
        """Return the names again and again, in another order each time."""
        order = random.Random(seed)
        rounds = (order.sample(self.names, len(self.names)) for _ in itertools.count())
        return Locked(itertools.chain.from_iterable(rounds))


class Locked:
    """An iterator that threads share."""

    def __init__(self, inner: itertools.chain[str]) -> None:
        self._inner, self._lock = inner, threading.Lock()

    def __iter__(self) -> Locked:
        return self

    def __next__(self) -> str:
        with self._lock:
            return next(self._inner)


def main() -> None:
    """Parse the arguments, measure, and print the result as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", "--data", dest="work", type=Path, required=True, help="folder of the indexes")
    parser.add_argument("--photos", type=Path, help="folder of photographs; without it pictures are drawn")
    parser.add_argument("--images", type=int, default=100_000, help="composed images")
    parser.add_argument("--seconds", type=float, default=60, help="of each phase")
    parser.add_argument("--only", choices=("calm", "rough"), help="one phase alone")
    parser.add_argument("--small", action="store_true", help="few images and seconds, with RootSIFT, for a trial")
    options = parser.parse_args()
    extractor = "rootsift" if options.small else "how-efficientnet-lite0"
    if options.small:
        options.images, options.seconds = 500, min(options.seconds, 4)
    options.work.mkdir(parents=True, exist_ok=True)
    photos = options.photos or draw_photographs(options.work / "drawn", 10)
    made = served_index(options.work, photograph_index(options.work, photos, extractor), options.images)
    index = linked(made, options.work / "served.index")
    load = prepared(index, options.work)
    result = {"images": index.images, "load_1_minute": os.getloadavg()[0], **floors(index, load)}
    server = Server(index.path, options.work / "server.log")
    try:
        wait_until_warm(server, load)
        if options.only != "rough":
            result |= calm(server, load, options.seconds) | paced(server, load, options.seconds / 2)
            result |= uploads(server, load, options.seconds / 6)
        if options.only != "calm":
            result |= rough(server, index.path, load, options.seconds)
    finally:
        problem = server.stop()
    if problem:
        print(f"# {problem}", flush=True)
        result["errors"] = result.get("errors", 0) + 1
    show(result)


def prepared(index: Index, work: Path) -> Load:
    """Find the right answers: to the names of all photographs, and to some photographs sent as files."""
    names = [name for name in index.names if not name.startswith("composed/")]
    right = right_answers(index.path, names, work, TOP, RERANK)
    searcher, found = Searcher(index), NamedImages(index)
    paths = {name: found.image_path(name) for name in random.Random(1).sample(names, min(UPLOADED, len(names)))}
    photographs = {path: without("", searcher.search(path, TOP, rerank=RERANK), TOP) for path in paths.values()}
    return Load(names, right, photographs)


def floors(index: Index, load: Load) -> dict[str, float]:
    """Measure what the server cannot go below: searches, the reading of features, and descriptions, in this process."""
    searcher, found = Searcher(index), NamedImages(index)
    names = random.Random(2).sample(load.names, min(FLOOR_NAMES, len(load.names)))
    features = [found.of_set(name) for name in names]
    reading = timed([lambda name=name: found.of_set(name) for name in names])
    searching = [lambda one=one: searcher.search(one, TOP + 2, threads=1, rerank=RERANK) for one in features]
    parallel = [lambda one=one: searcher.search(one, TOP + 2, rerank=RERANK) for one in features]
    timed(searching)
    begun = time.perf_counter()
    with ThreadPoolExecutor(threads.available_threads()) as pool:
        list(pool.map(lambda task: task(), searching))
    rate = len(searching) / (time.perf_counter() - begun)
    processor = time.process_time()
    single = timed(searching)
    processor = time.process_time() - processor
    extractor = index.extractor
    describing = timed([lambda path=path: extractor.extract(path) for path in load.photographs])
    return {
        "floor_ms": 1000 * statistics.median(single),
        "floor_p95_ms": 1000 * percentile(single, 95),
        "floor_cpu_ms": 1000 * processor / len(single),
        "floor_all_threads_ms": 1000 * statistics.median(timed(parallel)),
        "floor_answers_per_second": rate,
        "read_features_ms": 1000 * statistics.median(reading),
        "describe_floor_ms": 1000 * statistics.median(describing),
    }


def timed(tasks: list[Callable[[], object]]) -> list[float]:
    """Return the seconds of each task, one after another."""
    found = []
    for task in tasks:
        begun = time.perf_counter()
        task()
        found.append(time.perf_counter() - begun)
    return found


def wait_until_warm(server: Server, load: Load) -> None:
    """Upload twice and ask for every name once, within a minute, so that caches are full and files are mapped."""
    record, sizes = Record(), (TOP, RERANK)
    upload_photographs(server, dict(itertools.islice(load.photographs.items(), 2)), sizes, time.monotonic() + 5, record)
    names, end = Locked(itertools.chain(load.names)), time.monotonic() + WARM_SECONDS
    together([lambda: search_names(server, names, load.right, sizes, end, record) for _ in range(CLIENTS)])
    tell(record)


def together(tasks: list[Callable[[], None]]) -> None:
    """Do everything at the same time, each in a thread of its own."""
    running = [threading.Thread(target=task) for task in tasks]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def calm(server: Server, load: Load, seconds: float) -> dict[str, float]:
    """Let all clients search by names."""
    record, names = Record(), load.endless(1)
    end, begun = time.monotonic() + seconds, time.monotonic()
    before, own, machine = family_seconds(server), time.process_time(), machine_seconds()
    with sampled(server) as samples:
        together([lambda: search_names(server, names, load.right, (TOP, RERANK), end, record) for _ in range(CLIENTS)])
    count, took = len(record.seconds["search"]), time.monotonic() - begun
    server_took, clients_took = family_seconds(server) - before, time.process_time() - own
    busy, idle = (after - earlier for after, earlier in zip(machine_seconds(), machine, strict=True))
    tell(record)
    return {
        **latencies(record.seconds["search"], ""),
        "answers_per_second": count / took,
        "cpu_ms_per_answer": 1000 * server_took / max(count, 1),
        "client_cpu_ms_per_answer": 1000 * clients_took / max(count, 1),
        "cores_of_server": server_took / took,
        "cores_of_others": (busy - server_took - clients_took) / took,
        "cores_idle": idle / took,
        "errors": len(record.errors),
        **growths(samples, ""),
        "memory_mb": samples.last("memory"),
        "private_memory_mb": samples.last("private"),
    }


def paced(server: Server, load: Load, seconds: float) -> dict[str, float]:
    """Let all clients together send so many requests a second, as people do who look at the answers."""
    record, names, end = Record(), load.endless(3), time.monotonic() + seconds
    search = partial(search_names, server, names, load.right, (TOP, RERANK), end, record, CLIENTS / PACED_RATE)
    together([search] * CLIENTS)
    tell(record)
    return {**latencies(record.seconds["search"], "paced_"), "paced_errors": len(record.errors)}


def uploads(server: Server, load: Load, seconds: float) -> dict[str, float]:
    """Let one client search with photographs."""
    record = Record()
    upload_photographs(server, load.photographs, (TOP, RERANK), time.monotonic() + seconds, record)
    tell(record)
    return {"upload_p50_ms": 1000 * statistics.median(record.seconds["upload"]), "upload_errors": len(record.errors)}


def rough(server: Server, path: Path, load: Load, seconds: float) -> dict[str, float]:
    """Let half of the clients search by names while others, and other processes, misbehave."""
    record, names, sizes = Record(), load.endless(2), (TOP, RERANK)
    end, begun = time.monotonic() + seconds, time.monotonic()
    photograph = next(iter(load.photographs)).read_bytes()
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, path], cwd=Path(__file__).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    tasks: list[Callable[[], None]] = [
        *(lambda: search_names(server, names, load.right, sizes, end, record) for _ in range(CLIENTS // 2)),
        *(lambda head=head: send_slowly(server, end, record, head=head) for head in (True, False) * (SLOW // 2)),
        lambda: upload_photographs(server, load.photographs, sizes, end, record),
        lambda: upload_broken(server, photograph, end, record),
        lambda: kill_workers(server, min(5.0, seconds / 4), end, record),
    ]
    with sampled(server) as samples:
        together(tasks)
    took = time.monotonic() - begun
    commits = int(writer.communicate()[0] or 0)
    if served_commit(server) != Index.open(path).snapshot.manifest.commit:
        record.wrong("the last commit is not served")
    tell(record)
    searches, sent = record.seconds["search"], record.seconds["upload"]
    return {
        **latencies(searches, "rough_"),
        "rough_answers_per_second": len(searches) / took,
        "rough_errors": len(record.errors),
        **growths(samples, "rough_"),
        "rough_upload_p50_ms": 1000 * statistics.median(sent or [0.0]),
        "rough_uploads": len(sent),
        **{f"rough_{event.replace(' ', '_')}": count for event, count in sorted(record.events.items())},
        "rough_commits": commits,
    }


def served_commit(server: Server) -> int:
    """Return the number of the commit that is served, after the time in which the server looks for one."""
    time.sleep(3)
    with urllib.request.urlopen(f"http://{server.host}:{server.port}/indexes", timeout=30) as answer:
        return int(json.load(answer)["indexes"][0]["commit"])


def family_seconds(server: Server) -> float:
    """Return the time of processors that the server and the processes below it took."""
    return sum(map(processor_seconds, server.family))


def latencies(seconds: list[float], prefix: str) -> dict[str, float]:
    """Return percentiles in milliseconds."""
    values = seconds or [0.0]
    return {f"{prefix}p{percent}_ms": 1000 * percentile(values, percent) for percent in (50, 95, 99)}


def growths(samples: Samples, prefix: str) -> dict[str, float]:
    """Return by how much the server grew in a phase."""
    found = {"memory": "memory_growth_mb", "private": "private_growth_mb", "own": "server_growth_mb",
             "files": "files_growth", "threads": "threads_growth"}  # fmt: skip
    return {f"{prefix}{key}": samples.growth(what) for what, key in found.items()}


def tell(record: Record) -> None:
    """Print the first errors."""
    for error in record.errors[:10]:
        print(f"# {error}", flush=True)


if __name__ == "__main__":
    main()
