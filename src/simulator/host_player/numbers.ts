/** Hands out numbers as the kernel does: always the lowest that is free. */
export class Numbers {
  readonly #taken = new Set<number>();

  constructor(readonly first = 0) {}

  take(): number {
    let number = this.first;
    while (this.#taken.has(number)) number++;
    this.#taken.add(number);
    return number;
  }

  release(number: number): void {
    this.#taken.delete(number);
  }
}
