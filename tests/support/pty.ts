/** A program in a terminal of its own, as script(1) makes one: typed into and read like a person would. */
import { assert } from "@std/assert";
import { lastingCommand } from "./child.ts";

/** How a terminal is opened. */
export interface PtyOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Milliseconds for each wait. */
  readonly patienceMs?: number;
}

/** Keys that have no letter. */
export const KEY = {
  enter: "\r",
  down: "\x1b[B",
  up: "\x1b[A",
  ctrlC: "\x03",
  space: " ",
} as const;

/** A program that runs in a terminal. */
export class Pty {
  readonly #child: Deno.ChildProcess;
  readonly #keys: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reading: Promise<void>;
  readonly #patienceMs: number;
  #seen = "";
  /** What was looked at already. */
  #from = 0;
  #isOver = false;
  #wake = () => {};

  constructor(program: string, args: readonly string[], options: PtyOptions = {}) {
    this.#patienceMs = options.patienceMs ?? 20_000;
    // The one shell in the tests: script(1) takes no argument array.
    const line = ["exec", ...[program, ...args].map((arg) => `'${arg.replaceAll("'", `'\\''`)}'`)];
    this.#child = lastingCommand("script", {
      args: ["-qefc", `stty cols 100 rows 40; ${line.join(" ")}`, "/dev/null"],
      // Not what the machine that runs the tests wants of its own programs: CI, NO_COLOR.
      clearEnv: true,
      env: { PATH: Deno.env.get("PATH") ?? "", TERM: "xterm", ...options.env },
      stdin: "piped",
      stdout: "piped",
      stderr: "null",
    }).spawn();
    this.#keys = this.#child.stdin.getWriter();
    this.#reading = this.#read();
  }

  /** All that was shown, without colours and movements of the cursor. */
  get shown(): string {
    // deno-lint-ignore no-control-regex
    return this.#seen.replace(/\x1b\[[0-9;?]*[A-Za-z]/g, "").replaceAll("\r", "");
  }

  /** Waits until a text is shown that was not looked at yet; returns what came up to it. */
  async shows(text: string): Promise<string> {
    const deadline = Date.now() + this.#patienceMs;
    for (;;) {
      const at = this.shown.indexOf(text, this.#from);
      if (at >= 0) {
        const before = this.shown.slice(this.#from, at + text.length);
        this.#from = at + text.length;
        return before;
      }
      assert(!this.#isOver, `it ended without showing "${text}":\n${this.shown}`);
      const left = deadline - Date.now();
      assert(left > 0, `"${text}" was not shown in time:\n${this.shown}`);
      await this.#news(left);
    }
  }

  /** Presses keys. */
  async types(keys: string): Promise<void> {
    await this.#keys.write(new TextEncoder().encode(keys));
  }

  /** Waits for a text, then answers. */
  async answers(text: string, keys: string): Promise<void> {
    await this.shows(text);
    await this.types(keys);
  }

  /** Waits for the end; its exit status. */
  async ends(): Promise<number> {
    const { code } = await this.#child.status;
    await this.#reading;
    return code;
  }

  /** Ends it whatever it does. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOver) this.#child.kill("SIGKILL");
    await this.#keys.close().catch(() => {});
    await this.#child.status;
    await this.#reading;
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of this.#child.stdout) {
      this.#seen += decoder.decode(chunk, { stream: true });
      this.#wake();
    }
    this.#isOver = true;
    this.#wake();
  }

  async #news(ms: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
  }
}
