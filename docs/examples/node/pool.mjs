// A worker pool that knows why a worker died. Run: node pool.mjs
//
// Each task runs in a child process. The pool says over killwatch's socket which job the child is on. When a child is killed, it asks what
// happened and fails the task with the reason, instead of with "exit code 137".

import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";

import { death, startOf, tag, untag } from "./killwatch.mjs";

const WORKER = fileURLToPath(new URL("./worker.mjs", import.meta.url));

/** killwatch only adds to what is known: without it, tasks run and fail all the same. */
async function ifThere(what) {
  try {
    return await what;
  } catch (error) {
    console.error(`killwatch: ${error.message}`);
    return undefined;
  }
}

export class Pool {
  #idle = [];
  #waiting = [];
  #room;

  constructor(size) {
    this.#room = size;
  }

  /** Runs a task `{ id, … }` in a worker; rejects with the reason if the worker dies of it. */
  async run(task) {
    const worker = await this.#take();
    try {
      await ifThere(tag(worker.pid, { job_id: String(task.id), job_name: "pool.mjs" }));
      return await this.#work(worker, task);
    } finally {
      if (worker.dead) {
        this.#room += 1;
      } else {
        await ifThere(untag(worker.pid));
        this.#idle.push(worker);
      }
      this.#waiting.shift()?.();
    }
  }

  close() {
    for (const worker of this.#idle) worker.child.disconnect();
  }

  async #take() {
    while (this.#idle.length === 0 && this.#room === 0) {
      await new Promise((resolve) => this.#waiting.push(resolve));
    }
    const idle = this.#idle.pop();
    if (idle) return idle;
    this.#room -= 1;
    const child = fork(WORKER);
    return { child, pid: child.pid, start: startOf(child.pid), dead: false };
  }

  #work(worker, task) {
    return new Promise((resolve, reject) => {
      const { child } = worker;
      const ended = async (code, signal) => {
        worker.dead = true;
        const known = await ifThere(death(worker.pid, worker.start));
        reject(new Error(known ? reason(known) : `the worker ended with ${signal ?? `exit code ${code}`}`));
      };
      child.once("exit", ended);
      child.once("message", (result) => {
        child.off("exit", ended);
        resolve(result);
      });
      child.send(task);
    });
  }
}

/** A death in a line. */
function reason(record) {
  const job = record.job?.id ? `job ${record.job.id}: ` : "";
  return `${job}${record.cause}: ${record.evidence[0]}. ${record.advice}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const pool = new Pool(2);
  const tasks = [{ id: "small", mib: 1 }, { id: "4711", mib: Number(process.env.TOO_MUCH_MIB ?? 100_000) }, { id: "after", mib: 1 }];
  const results = await Promise.allSettled(tasks.map((task) => pool.run(task)));
  results.forEach(({ status, value, reason: error }, n) => {
    console.log(status === "fulfilled" ? `${tasks[n].id}: done, ${value} bytes` : `${tasks[n].id}: FAILED: ${error.message}`);
  });
  pool.close();
}
