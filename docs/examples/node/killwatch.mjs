// Asks killwatch on this machine, over its Unix socket, with nothing but Node's standard library.

import { readFileSync } from "node:fs";
import { request } from "node:http";

const SOCKET = process.env.KILLWATCH_API_SOCKET ?? "/run/killwatch/killwatch.sock";
/** Longest wait for an answer, in ms. killwatch is there to help: a worker pool must not hang on it. */
const PATIENCE = 5000;

/** Sends one request; resolves to the status and the parsed body, rejects if killwatch is not there. */
function ask(method, path, body) {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? "" : JSON.stringify(body);
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(text) };
    const sent = request({ socketPath: SOCKET, method, path, headers, timeout: PATIENCE }, (answer) => {
      const pieces = [];
      answer.on("data", (piece) => pieces.push(piece));
      answer.on("error", reject);
      answer.on("end", () => {
        try {
          const said = Buffer.concat(pieces).toString();
          resolve({ status: answer.statusCode, body: said === "" ? undefined : JSON.parse(said) });
        } catch (error) {
          reject(error);
        }
      });
    });
    sent.on("timeout", () => sent.destroy(new Error(`no answer from ${SOCKET} within ${PATIENCE} ms`)));
    sent.on("error", reject);
    sent.end(text);
  });
}

/** When a process was started: field 22 of /proc/PID/stat. With its pid it names the process; the pid alone may be given again. */
export function startOf(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
}

/** Says which job a child process works on from now on. */
export async function tag(pid, tags) {
  const { status, body } = await ask("PUT", `/v1/tags/${pid}`, tags);
  if (status >= 300) throw new Error(`killwatch refused the tags: ${body?.error ?? status}`);
}

/** Says that a child process works on no job any more. */
export async function untag(pid) {
  await ask("DELETE", `/v1/tags/${pid}`);
}

/** What happened to a process that is gone: killwatch's record of its death, or undefined if it knows of none. */
export async function death(pid, start) {
  const { status, body } = await ask("GET", `/v1/deaths?pid=${pid}&start=${start}&wait=2s`);
  if (status !== 200) throw new Error(`killwatch: ${body?.error ?? status}`);
  return body.state === "dead" ? body.deaths[0] : undefined;
}
