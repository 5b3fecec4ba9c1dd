/** Talks to the agent in the test VM (`scripts/vm/guest/agent.sh`): one connection, one script. */

import { Buffer } from "node:buffer";
import { connect } from "node:net";

/** What a script in the VM came to. */
export interface ShellResult {
  /** Exit status; 124 when the script was ended because it took too long. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a bash script in the VM; throws only when the agent cannot be talked to. */
export async function runInVm(
  port: number,
  script: string,
  timeoutSeconds: number,
): Promise<ShellResult> {
  const body = Buffer.from(script);
  const request = Buffer.concat([Buffer.from(`${body.length} ${timeoutSeconds}\n`), body]);
  // The guest bounds the script itself; the margin is for a guest that no longer answers at all.
  const answer = await exchange(port, request, (timeoutSeconds + 30) * 1000);
  const lineEnd = answer.indexOf(10);
  const [status, outBytes, errBytes] = answer.subarray(0, Math.max(lineEnd, 0)).toString()
    .split(" ").map(Number);
  const expected = lineEnd + 1 + (outBytes ?? NaN) + (errBytes ?? NaN);
  if (status === undefined || answer.length !== expected) {
    throw new Error(`The VM's agent answered ${answer.length} bytes that make no whole answer`);
  }
  const outEnd = lineEnd + 1 + (outBytes ?? 0);
  return {
    status,
    stdout: answer.subarray(lineEnd + 1, outEnd).toString(),
    stderr: answer.subarray(outEnd).toString(),
  };
}

function exchange(port: number, request: Buffer, timeoutMs: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, "127.0.0.1");
    const received: Buffer[] = [];
    const timer = setTimeout(
      () => socket.destroy(new Error(`The VM's agent did not answer within ${timeoutMs} ms`)),
      timeoutMs,
    );
    socket.on("connect", () => socket.write(request));
    socket.on("data", (data) => received.push(data as Buffer));
    socket.on("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    socket.on("close", () => {
      clearTimeout(timer);
      resolve(Buffer.concat(received));
    });
  });
}
