"""Jobs are claimed in order and once, and a dead worker's comes back; on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from postgres_server import postgres_server

from medseg.bundles.queue import Queue, UnknownJob
from medseg.errors import InputError


@pytest.fixture(scope="module")
def postgres_url():
    with postgres_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield str(tmp_path / "jobs.sqlite")
        return
    url = request.getfixturevalue("postgres_url")
    yield url
    with Queue(url).storage.transaction() as execute:
        execute("DROP TABLE medseg_jobs")


class Clock:
    def __init__(self):
        self.seconds = 1_000_000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(url, clock):
    return Queue(url, now=clock)


def claimed(queue, *workers):
    return [queue.claim(worker).payload["n"] for worker in workers]


def test_higher_priorities_run_first_and_then_older_jobs(queue):
    for number, priority in enumerate((0, 5, 0, 5)):
        queue.submit({"n": number}, priority=priority)
    assert claimed(queue, *"abcd") == [1, 3, 0, 2]
    assert queue.claim("e") is None


def test_a_job_tells_who_asked_when_it_began_and_what_came_out(queue, clock):
    id = queue.submit({"n": 1, "bundle": "mm_gtv"}, owner="ann")
    clock.seconds += 10
    job = queue.claim("w", lease_s=60)
    assert (job.id, job.owner, job.task, job.state, job.attempts) == (id, "ann", "mm_gtv", "running", 1)
    assert (job.submitted_at, job.started_at, job.lease_until) == (1_000_000.0, 1_000_010.0, 1_000_070.0)
    assert queue.heartbeat(id, "w", 60, progress=0.25, note="1 case")
    assert queue.heartbeat(id, "w", 60, note="2 cases")
    assert (queue.get(id).progress, queue.get(id).note) == (0.25, "2 cases")
    clock.seconds += 5
    assert queue.finish(id, "w", {"cases": [1]})
    done = queue.get(id)
    assert (done.state, done.result, done.progress, done.ended_at) == ("done", {"cases": [1]}, 1, 1_000_015.0)
    assert done.lease_until is None


def test_the_same_key_is_the_same_job_until_that_has_failed(queue):
    first = queue.submit({"n": 1}, key="study")
    assert queue.submit({"n": 2}, key="study") == first
    assert queue.submit({"n": 3}, key="other") != first
    queue.claim("w")
    assert queue.submit({"n": 4}, key="study") == first
    queue.fail(first, "w", "no slices")
    again = queue.submit({"n": 5}, key="study")
    assert again != first and queue.get(again).payload == {"n": 5}
    assert queue.submit({"n": 1}) != queue.submit({"n": 1})  # without a key nothing is compared


def test_the_same_key_from_many_at_once_makes_one_job(url):
    queue = Queue(url)
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda n: queue.submit({"n": n}, key="study"), range(40)))
    assert len(set(ids)) == 1 and queue.counts()["waiting"] == 1


def test_a_worker_claims_only_the_tasks_it_may_run(queue):
    queue.submit({"n": 1, "bundle": "a"})
    queue.submit({"n": 2, "bundle": "b"})
    assert queue.claim("w", tasks=()) is None
    assert queue.claim("w", tasks=("b", "c")).payload["n"] == 2
    assert queue.claim("w", tasks=("b", "c")) is None


CLAIMER = """
import sys
import time
from medseg.bundles.queue import Queue
queue, name = Queue(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
while job := queue.claim(name):
    assert queue.finish(job.id, name, {})
    print(job.payload["n"])
    time.sleep(0.002)  # else the first to run may take all
"""


def test_eight_processes_claim_200_jobs_and_none_twice(url):
    queue = Queue(url)
    for number in range(200):
        queue.submit({"n": number})
    command = [sys.executable, "-c", CLAIMER, url]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, f"w{n}"], **pipes) for n in range(8)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # all at once
        process.stdin.write("go\n")
        process.stdin.flush()
    numbers = [int(word) for process in processes for word in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in processes] == [0] * 8
    assert sorted(numbers) == list(range(200))
    assert queue.counts()["done"] == 200
    assert len(Counter(job.worker for job in queue.jobs(limit=200))) > 1


def test_a_killed_workers_job_comes_back_and_is_finished_by_another(url):
    queue = Queue(url)
    id = queue.submit({"n": 1})
    script = "import sys, time\nfrom medseg.bundles.queue import Queue\n"
    script += "print(Queue(sys.argv[1]).claim('killed', lease_s=0.5).id, flush=True)\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == id
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert queue.claim("other") is None
    deadline = time.monotonic() + 10
    while (job := queue.claim("other")) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (job.id, job.attempts, job.reason) == (id, 2, "its worker killed was lost")
    assert queue.finish(id, "other", {}) and queue.get(id).reason is None


def test_who_lost_a_job_can_neither_hold_finish_nor_fail_it(queue, clock):
    id = queue.submit({"n": 1})
    queue.claim("slow", lease_s=60)
    clock.seconds += 61
    assert queue.claim("quick").id == id
    assert not queue.heartbeat(id, "slow")
    assert not queue.finish(id, "slow", {"by": "slow"})
    assert not queue.fail(id, "slow", "x") and not queue.give_back(id, "slow")
    assert queue.finish(id, "quick", {"by": "quick"})
    assert queue.get(id).result == {"by": "quick"}


def test_a_heartbeat_holds_a_job_beyond_its_first_lease(queue, clock):
    id = queue.submit({"n": 1})
    queue.claim("w", lease_s=60)
    for _ in range(5):
        clock.seconds += 50
        assert queue.heartbeat(id, "w", 60)
        assert queue.claim("other") is None


def test_three_deaths_set_a_job_aside_with_the_reason(queue, clock):
    id = queue.submit({"n": 1})
    for death in (1, 2, 3):
        assert queue.claim(f"w{death}", lease_s=60).attempts == death
        queue.heartbeat(id, f"w{death}", 60, note="3 cases through")
        clock.seconds += 61
    assert queue.claim("w4") is None
    job = queue.get(id)
    assert (job.state, job.ended_at) == ("set aside", clock.seconds)
    assert job.reason == "its worker was lost 3 times, the last one w3 at: 3 cases through"


def test_an_inputs_fault_is_final_and_a_crash_comes_back_twice(queue):
    final, crash = queue.submit({"n": 1}), queue.submit({"n": 2})
    queue.claim("w")
    assert queue.fail(final, "w", "a slice is missing")
    assert (queue.get(final).state, queue.get(final).reason) == ("failed", "a slice is missing")
    states = []
    for _ in range(3):
        assert queue.claim("w").id == crash
        queue.fail(crash, "w", "RuntimeError", retry=True)
        states.append((queue.get(crash).state, queue.get(crash).ended_at is None))
    assert states == [("waiting", True), ("waiting", True), ("set aside", False)]
    assert queue.claim("w") is None


def test_a_job_given_back_counts_as_no_attempt(queue):
    id = queue.submit({"n": 1})
    for _ in range(5):
        assert queue.claim("w").attempts == 1
        assert queue.give_back(id, "w")
    assert queue.get(id).state == "waiting"


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_by_the_next_heartbeat(queue, clock):
    running, waiting = queue.submit({"n": 1}), queue.submit({"n": 2})
    queue.claim("w")
    assert queue.cancel(waiting) and queue.get(waiting).state == "cancelled"
    queue.remove(waiting)
    assert queue.cancel(running)
    with pytest.raises(InputError, match="its worker has it still"):
        queue.remove(running)
    assert not queue.heartbeat(running, "w")
    queue.let_go(running, "w")
    queue.remove(running)
    assert queue.jobs() == []
    with pytest.raises(UnknownJob):
        queue.cancel(running)


def test_a_cancelled_job_never_comes_back_and_an_ended_one_is_not_cancelled(queue, clock):
    id = queue.submit({"n": 1})
    queue.claim("w", lease_s=60)
    queue.cancel(id)
    clock.seconds += 61
    assert queue.claim("other") is None
    assert not queue.cancel(id)
    queue.remove(id)  # its worker is dead: the lease has run out


def test_positions_and_expected_waits(queue, clock):
    assert queue.expected_wait_s(queue.submit({"n": 0})) is None  # nothing was ever done
    for seconds in (20, 40):
        job = queue.claim("w")
        clock.seconds += seconds
        queue.finish(job.id, "w", {})
        queue.submit({"n": 1})
    ids = [job.id for job in queue.jobs(state="waiting")] + [queue.submit({"n": 2}) for _ in range(3)]
    assert [queue.position(id) for id in ids] == [1, 2, 3, 4]
    # The mean of 20 and 40 s; nobody is busy, so the first begins at once.
    assert [queue.expected_wait_s(id) for id in ids] == [0, 30, 60, 90]
    queue.claim("w1")
    assert [queue.position(id) for id in ids] == [0, 1, 2, 3]
    assert [queue.expected_wait_s(id) for id in ids] == [0, 15, 45, 75]
    queue.claim("w2")  # two workers at it
    assert [queue.expected_wait_s(id) for id in ids] == [0, 0, 7.5, 22.5]
    urgent = queue.submit({"n": 3}, priority=1)
    assert (queue.position(urgent), queue.position(ids[2])) == (1, 2)


def test_jobs_are_listed_by_owner_and_state_newest_first(queue):
    ids = [queue.submit({"n": n}, owner=owner) for n, owner in enumerate(("ann", "bob", "ann"))]
    queue.claim("w")
    assert [job.id for job in queue.jobs(owner="ann")] == [ids[2], ids[0]]
    assert [job.id for job in queue.jobs(owner="ann", state="waiting")] == [ids[2]]
    assert [job.id for job in queue.jobs(limit=2)] == [ids[2], ids[1]]
    assert queue.jobs(owner="' OR 1=1 --") == []
    counts = {state: n for state, n in queue.counts().items() if n}
    assert counts == {"waiting": 2, "running": 1} and queue.counts()["failed"] == 0


def test_old_jobs_go_after_their_files_and_stay_when_these_cannot_be_deleted(queue, clock):
    old, stuck, waiting = (queue.submit({"n": n}) for n in range(3))
    for _ in (old, stuck):
        queue.finish(queue.claim("w").id, "w", {})
    clock.seconds += 29 * 86400
    assert queue.remove_older(30) == []
    clock.seconds += 2 * 86400
    seen = []

    def delete_files(job):
        seen.append(queue.get(job.id).id)
        if job.id == stuck:
            raise OSError("busy")

    with pytest.raises(OSError, match="busy"):
        queue.remove_older(30, delete_files)
    assert seen == [old, stuck]
    assert {job.id for job in queue.jobs()} == {stuck, waiting}
    assert [job.id for job in queue.remove_older(30)] == [stuck]
    assert queue.get(waiting).state == "waiting"  # however old: it has not ended


def test_an_unknown_job_and_values_that_json_lacks_are_refused(queue):
    for ask in (queue.get, queue.position, queue.expected_wait_s, queue.cancel, queue.remove):
        with pytest.raises(UnknownJob, match="no job 'nobody'"):
            ask("nobody")
    with pytest.raises(ValueError):
        queue.submit({"n": float("nan")})
    assert queue.jobs() == []


def test_a_forked_child_has_a_connection_of_its_own(url):
    queue = Queue(url)
    queue.submit({"n": 1})
    child = os.fork()
    if child == 0:
        os._exit(0 if queue.claim("child") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert queue.jobs()[0].worker == "child"
    queue.submit({"n": 2})
    assert queue.claim("parent").payload == {"n": 2}


def test_what_is_no_queue_is_refused_in_a_line_without_the_password(tmp_path):
    (tmp_path / "text").write_text("no database, but long enough to be taken for one by its size" * 10)
    for url, words in (
        (tmp_path / "absent" / "jobs.sqlite", "in a folder that exists"),
        (tmp_path / "text", "not a database"),
        ("mysql://somewhere", "postgresql://"),
    ):
        with pytest.raises(InputError, match=words):
            Queue(url)
    pytest.importorskip("psycopg")
    with pytest.raises(InputError, match="127.0.0.1:9/jobs") as refused:
        Queue("postgresql://medseg:secret@127.0.0.1:9/jobs")
    assert "secret" not in str(refused.value)


def test_the_queue_loads_neither_torch_nor_pydicom():
    script = "import sys\nfor name in ('torch', 'pydicom', 'monai', 'psycopg'): sys.modules[name] = None\n"
    script += "from medseg.bundles.queue import Queue\nQueue(':memory:').submit({})"
    subprocess.run([sys.executable, "-c", script], check=True)
