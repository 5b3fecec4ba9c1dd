/** Times things that the bench itself does. */

/** Times of so many runs, one after the other, in ms. */
export async function timed(runs: number, work: () => Promise<unknown>): Promise<number[]> {
  const times: number[] = [];
  for (let run = 0; run < runs; run++) {
    const start = performance.now();
    await work();
    times.push(performance.now() - start);
  }
  return times;
}

/** Times of two things in turn, so that both meet the same moods of the machine. */
export async function inTurn(
  runs: number,
  one: () => Promise<number>,
  other: () => Promise<number>,
): Promise<{ readonly one: number[]; readonly other: number[]; readonly ratios: number[] }> {
  const pairs: [number, number][] = [];
  for (let run = 0; run < runs; run++) pairs.push([await one(), await other()]);
  return {
    one: pairs.map(([first]) => first),
    other: pairs.map(([, second]) => second),
    ratios: pairs.map(([first, second]) => first / second),
  };
}

/** Waits for a condition; throws after `ms`. */
export async function until(
  what: string,
  ms: number,
  condition: () => Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + ms;
  while (!await condition()) {
    if (performance.now() > deadline) throw new Error(`${what} did not happen within ${ms} ms`);
    await pause(20);
  }
}

/** Lets time pass. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** The work's outcome. @throws Error when it takes longer than `ms`. */
export async function within<T>(ms: number, what: string, work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took more than ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
