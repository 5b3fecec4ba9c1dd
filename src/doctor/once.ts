/** Reading once what several checks want. */

/** The same promise for everybody who asks; a failure is everybody's too. */
export function once<T>(read: () => Promise<T>): () => Promise<T> {
  let reading: Promise<T> | undefined;
  return () => {
    reading ??= read();
    // Who comes later gets it as well: until then nobody else has to.
    reading.catch(() => {});
    return reading;
  };
}
