"""Processes that know why one of them died. Run: python3 pool.py

Each task runs in a process of its own, which says over killwatch's socket which job it is on. When one is killed, the pool asks what happened
and fails the task with the reason, instead of with "exit code -9".
"""

import contextlib
import multiprocessing
import os
import sys

import killwatch

MIB = 1 << 20


def if_there():
    """killwatch only adds to what is known: without it, tasks run and fail all the same."""
    return contextlib.suppress(OSError)


def work(task: dict) -> None:
    """Holds as many MiB as the task asks for."""
    with if_there():
        killwatch.tag_self(job_id=task["id"], job_name="pool.py")
    held = []
    for _ in range(task["mib"]):
        held.append(b"\x01" * MIB)


def why(process: multiprocessing.Process, start: str) -> str:
    """Why a process that is gone had failed."""
    with if_there():
        record = killwatch.death(process.pid, start)
        if record:
            job = record.get("job", {}).get("id", "?")
            return f"job {job}: {record['cause']}: {record['evidence'][0]}. {record['advice']}"
    return f"the process ended with {process.exitcode}"


def main() -> int:
    tasks = [{"id": "small", "mib": 1}, {"id": "4711", "mib": int(os.environ.get("TOO_MUCH_MIB", "100000"))}]
    running = []
    for task in tasks:
        process = multiprocessing.Process(target=work, args=(task,))
        process.start()
        running.append((task, process, killwatch.start_of(process.pid)))
    for task, process, start in running:
        process.join()
        print(f"{task['id']}: " + ("done" if process.exitcode == 0 else f"FAILED: {why(process, start)}"))
    return 0


if __name__ == "__main__":
    # The processes are started by this one, so that they stay its children whatever the platform's default is.
    multiprocessing.set_start_method("fork")
    sys.exit(main())
