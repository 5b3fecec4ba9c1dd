/** Which zvols can be a storage's volumes: the direct children of its dataset. */

/** Whether `zvol` lies directly below `dataset`. */
export function isDirectChild(zvol: string, dataset: string): boolean {
  return zvol.startsWith(`${dataset}/`) && !zvol.slice(dataset.length + 1).includes("/");
}
