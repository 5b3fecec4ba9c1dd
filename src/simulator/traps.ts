/**
 * What a real TrueNAS does to its clients that is easily forgotten: the list that the simulator has
 * to reproduce, each item with the test that shows it or the issue that will bring it.
 */

/** One item of the list. */
export interface Trap {
  readonly number: number;
  readonly text: string;
  /** The name of a test, word for word. */
  readonly test?: string;
  /** 2 the simulator itself, 3 the life of a volume, 4 the daemon's session, 6 faults. */
  readonly issue?: number;
}

export const TRAPS: readonly Trap[] = [
  {
    number: 1,
    text: "Ten calls run and ten wait; one more is refused, and answers overtake each other",
    test: "the 21st call at once is refused and each call holds its slot until it ends",
  },
  {
    number: 2,
    text: "The device node of a new zvol is late, and exports made before it fail",
    test: "a new zvol's device node comes after the answer",
  },
  {
    number: 3,
    text: "Mappings made at once can share one LUN",
    test: "two mappings at once without a number may get the same LUN",
  },
  {
    number: 4,
    text: "Extents made at once race; only their names are guarded by the database",
    test: "the database refuses a second extent of one name and takes a second one of one zvol",
  },
  {
    number: 5,
    text: "Reloads of a service queue up behind each other",
    test: "reloads of one service wait for each other",
  },
  {
    number: 6,
    text: "A reload that fails leaves the row saved",
    test: "a failed reload leaves its row behind",
  },
  {
    number: 7,
    text: "A closed connection lets calls finish on 25.x and stops them half-way on 26",
    test: "a call whose connection goes is finished on 25.x and left half done on 26",
  },
  {
    number: 8,
    text: "Silence from the server ends a connection without a close frame",
    test: "a connection on which the server says nothing is cut without a close frame",
  },
  {
    number: 9,
    text: "An event may come before or after the answer of the call that caused it",
    test: "an event can come before the answer or after it",
  },
  {
    number: 10,
    text: "Deleting a zvol removes its shares first and may then fail",
    test: "deleting a zvol takes its shares, and a target left empty, before the zvol itself",
  },
  {
    number: 11,
    text: "26 says that a busy zvol is deleted",
    test: "26 answers true although a busy zvol is still there",
  },
  {
    number: 12,
    text: "A zvol stays busy for a while after its last user has gone",
    test: "a zvol that the kernel lets go later can be deleted later",
  },
  {
    number: 13,
    text: "Any session on a target keeps all its mappings, unless forced",
    test: "a mapping under a session goes only with force",
  },
  {
    number: 14,
    text: "A snapshot with clones goes only deferred, and stays listed",
    test: "a snapshot with a clone stays listed until the clone goes",
  },
  {
    number: 15,
    text: "Freed space shows up later than the deletion",
    test: "space becomes free a while after the zvol is gone",
  },
  {
    number: 16,
    text: "A namespace is deleted under running I/O",
    test: "a namespace goes even while hosts are connected",
  },
  {
    number: 17,
    text: "Deleting an initiator group opens its targets to everybody",
    test: "a target whose initiator group is deleted is open to everybody",
  },
  {
    number: 18,
    text: "Volumes are thick by default, multiples of their blocks, within 80 %, never smaller",
    test: "sizes follow the rules for zvols",
  },
  {
    number: 19,
    text: "Types are strict, keys known, texts and frames limited",
    test: "types are strict, unknown keys are refused, long texts too",
  },
  {
    number: 20,
    text: "What does not exist is an invalid parameter, with ENOENT only inside",
    test: "what is not there is a validation error with the number only inside",
  },
  {
    number: 21,
    text: "Identities are random and the server's; ids grow; portal tags close up",
    test: "naa and serial are the server's and random, ids grow",
  },
  {
    number: 22,
    text: "Dates, transaction groups and properties have forms of their own",
    test: "dates, transaction groups and properties have the API's own forms",
  },
  {
    number: 23,
    text: "A wrong key is a result after a pause; too many logins are an error",
    test: "a wrong key is a result, and the 21st login in a minute an error",
  },
  { number: 24, text: "A key used over plain http is revoked", issue: 6 },
  {
    number: 25,
    text: "A stopped service takes every write and offers nothing",
    test: "with the service stopped every write succeeds and nothing is offered",
  },
  {
    number: 26,
    text: "Disabled and locked extents are listed and not offered",
    test: "a disabled or locked extent is listed and not offered",
  },
  {
    number: 27,
    text: "Extent names that differ only in separators clash since 25.10",
    test: "extent names clash once flattened, on 25.10 and later",
  },
  {
    number: 28,
    text: "Dataset calls get slower with every dataset on the box since 25.10",
    test: "the walk over all datasets grows with their number since 25.10",
  },
  {
    number: 29,
    text: "Secrets read back as asterisks without the right to write them",
    test: "secrets are masked for a reader",
  },
  {
    number: 30,
    text: "Old methods linger for full administrators only, or are gone",
    test: "methods that have gone private answer only a full administrator",
  },
];
