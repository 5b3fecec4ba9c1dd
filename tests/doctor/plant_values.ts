/** Documents that plants leave on a node. */

/** An entry of the journal. */
export function journalEntry(startedMs: number) {
  return {
    v: 1,
    id: "0b8f9d2e-5f0c-4c5e-9a51-3a5f0e6f9c11",
    storage: "san",
    node: "pve1",
    dataset: "tank/pve",
    transport: "nvme-tcp",
    zvol: "vm-1-disk-0",
    startedMs,
    details: { op: "alloc", operation: "0b8f9d2e-5f0c-4c5e-9a51-3a5f0e6f9c12", repeatable: true },
  };
}
