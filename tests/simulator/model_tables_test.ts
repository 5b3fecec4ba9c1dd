/** The condensed model tables say the same as the published models that they were made from. */

import { assertEquals } from "@std/assert";
import { readFileSync } from "node:fs";
import { modelTable } from "../../src/simulator/models/tables.ts";
import type { Dialect } from "../../src/simulator/release.ts";

const FOLDER = new URL("../fixtures/truenas/schema/", import.meta.url);
const read = (path: string) => JSON.parse(readFileSync(new URL(path, FOLDER), "utf8"));

for (const dialect of ["v25_04_2", "v25_10_0", "v26_0_0"] satisfies Dialect[]) {
  Deno.test(`the model table of ${dialect} is that of its schemas`, () => {
    const table = modelTable(dialect);
    const { methods } = read(`${dialect}/index.json`);
    assertEquals([...table.methods.keys()].sort(), Object.keys(methods).sort());
    for (const [name, model] of table.methods) {
      const schema = read(`${dialect}/${name}.json`);
      const params = schema.properties?.params ?? { prefixItems: [], minItems: 0 };
      assertEquals([name, model.params], [name, params.prefixItems ?? []]);
      assertEquals([name, model.min], [name, params.minItems ?? 0]);
      assertEquals([name, model.names], [name, methods[name].param_names]);
      assertEquals([name, model.job ?? false], [name, methods[name].job ?? false]);
      const refs = JSON.stringify(model.params).matchAll(/"#\/\$defs\/([^"]+)"/g);
      for (const [, ref = ""] of refs) {
        assertEquals([ref, table.models.get(ref)], [ref, schema.$defs[ref]]);
      }
    }
  });
}
