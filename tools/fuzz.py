"""Damage sound files in thousands of seeded ways, and see what medseg's readers make of them.

    python tools/fuzz.py --inputs 12000 --seed 0          # a long run
    python tools/fuzz.py --inputs 600                     # as the tests do, in about 20 s
    python tools/fuzz.py --kinds seg --only 123 --keep x  # one input again; the damaged file is kept as x

Every input is read in a worker process with a limit of memory and of time. Exit code 1 when any ended in an
exception that is no MedsegError, a dead process, a hang, or too much memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "fuzzing"))
from kinds import KINDS, prepare, quiet
from mutations import differing_elements

OUTCOMES = ("refused", "read", "said", "silent", "other", "exception", "died", "hang", "memory")
"""refused: one MedsegError. read: as the original. said, silent: a DICOM file read as something else, with
and without a notice. other: read as something else, of kinds that hold what their author wants."""

FAILURES = ("exception", "died", "hang", "memory")
MEMORY_BYTES = 4 << 30
REPORTED = 10


def attempt(kind, number: int, seed: str, keep: Path | None = None) -> tuple[str, str]:
    """(outcome, words about it) of one damaged input."""
    from medseg.errors import MedsegError

    chance = random.Random(f"{seed} {number}")
    original = kind.originals[number % len(kind.originals)]
    sound = original.read_bytes()
    damaged, how = kind.damage(sound, chance)
    original.write_bytes(damaged)
    try:
        found, notices = kind.read(original)
    except MedsegError as error:
        broken = "\n" in str(error) or len(str(error)) > 2000
        return ("exception", f"a message of several lines: {error}") if broken else ("refused", "")
    except MemoryError:
        return "memory", how
    except Exception:
        return "exception", f"{how}: {traceback.format_exc(limit=-6)}"
    finally:
        original.write_bytes(sound)
        if keep:
            keep.write_bytes(damaged)
    if found == kind.expected[original]:
        return "read", ""
    if not kind.is_dicom:
        return "other", how
    return ("said" if notices else "silent"), differing_elements(sound, damaged)


def work(pipe, names: list[str], seed: int) -> None:
    """Answer (kind, number) with (outcome, words) until None comes."""
    import faulthandler

    faulthandler.enable()
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        kinds = prepare(Path(folder), names)
        _limit_memory()
        pipe.send(None)
        while (asked := pipe.recv()) is not None:
            name, number = asked
            pipe.send(attempt(kinds[name], number, f"{seed} {name}"))


def _limit_memory() -> None:
    """As much as there is now and MEMORY_BYTES more, where the system can limit it."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (ImportError, OSError):
        print("memory is not limited on this system", file=sys.stderr)


class Worker:
    """The worker process; another one takes its place when it dies or hangs."""

    def __init__(self, names: list[str], seed: int, timeout_s: float) -> None:
        self._arguments, self._timeout_s = (names, seed), timeout_s
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=work, args=(other, *self._arguments), daemon=False)
        self._process.start()
        other.close()
        self._pipe.recv()

    def ask(self, name: str, number: int) -> tuple[str, str]:
        for _ in range(2):  # a machine that stood still for a minute is no hang of one input
            self._pipe.send((name, number))
            if self._pipe.poll(self._timeout_s):
                break
            self._process.kill()
            self._process.join()
            self._start()
        else:
            return "hang", f"twice over {self._timeout_s:g} s"
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self._start()
            return "died", f"exit code {code}"

    def end(self) -> None:
        self._pipe.send(None)
        self._process.join()


def run(names: list[str], inputs: int, seconds: float, seed: int, timeout_s: float):
    """({kind: Counter of outcomes}, {(kind, what changed): count} of silent changes, failures in words)."""
    counts: dict[str, Counter] = {name: Counter() for name in names}
    silent: Counter = Counter()
    failures: list[str] = []
    worker = Worker(names, seed, timeout_s)
    end = time.monotonic() + seconds
    for number in range(inputs):
        if time.monotonic() > end:
            break
        name = names[number % len(names)]
        outcome, words = worker.ask(name, number // len(names))
        counts[name][outcome] += 1
        if outcome == "silent":
            silent[name, words] += 1
        if outcome in FAILURES:
            failures.append(f"{name} {number // len(names)}: {outcome}: {words}")
    worker.end()
    return counts, silent, failures


def report(counts, silent, failures) -> str:
    """Tables in Markdown, then the failures."""
    rows = [["kind", "inputs", *OUTCOMES]]
    for name, found in {**counts, "all": sum(counts.values(), Counter())}.items():
        rows.append([name, found.total(), *(found[outcome] for outcome in OUTCOMES)])
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    lines.insert(1, "|---|" + "--:|" * (len(rows[0]) - 1))
    lines += ["", "| kind | silent: what differs from the sound file | inputs |", "|---|---|--:|"]
    lines += [f"| {name} | {words} | {count} |" for (name, words), count in silent.most_common()]
    return "\n".join([*lines, "", *failures[:REPORTED], f"{len(failures)} failures"])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000, help="at most so many, over all kinds")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="at most so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of %(default)s")
    parser.add_argument("--timeout", type=float, default=60, help="seconds until it is a hang")
    parser.add_argument("--only", type=int, help="this number of one kind, in this process")
    parser.add_argument("--keep", type=Path, help="with --only: write the damaged file here")
    options = parser.parse_args()
    names = options.kinds.split(",")
    unknown = sorted(set(names) - set(KINDS))
    if unknown:
        parser.error(f"no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    if options.only is not None:
        quiet()
        with tempfile.TemporaryDirectory() as folder:
            kind = prepare(Path(folder), names[:1])[names[0]]
            print(*attempt(kind, options.only, f"{options.seed} {names[0]}", options.keep))
        return 0
    results = run(names, options.inputs, options.seconds, options.seed, options.timeout)
    print(report(*results))
    return 1 if results[2] else 0


if __name__ == "__main__":
    sys.exit(main())
